// A plugin that is written in Go, with go-plugin. It serves unary calls of the echo service, and ends when its input does.
// scripts/go-plugin builds it.
package main

import (
	"context"
	"errors"
	"io"
	"os"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// As ../../proto/echo.proto says, without a generator.
type EchoRequest struct {
	Id       uint64 `protobuf:"varint,1,opt,name=id,proto3"`
	Payload  []byte `protobuf:"bytes,2,opt,name=payload,proto3"`
	DelayMs  uint32 `protobuf:"varint,3,opt,name=delay_ms,proto3"`
	Repeat   uint32 `protobuf:"varint,4,opt,name=repeat,proto3"`
	FailCode uint32 `protobuf:"varint,5,opt,name=fail_code,proto3"`
}

func (m *EchoRequest) Reset()         { *m = EchoRequest{} }
func (m *EchoRequest) String() string { return "request" }
func (*EchoRequest) ProtoMessage()    {}

type EchoReply struct {
	Id      uint64 `protobuf:"varint,1,opt,name=id,proto3"`
	Payload []byte `protobuf:"bytes,2,opt,name=payload,proto3"`
	Server  string `protobuf:"bytes,3,opt,name=server,proto3"`
}

func (m *EchoReply) Reset()         { *m = EchoReply{} }
func (m *EchoReply) String() string { return "reply" }
func (*EchoReply) ProtoMessage()    {}

type echoServer interface {
	Unary(context.Context, *EchoRequest) (*EchoReply, error)
}

type echo struct{}

func (echo) Unary(_ context.Context, r *EchoRequest) (*EchoReply, error) {
	return &EchoReply{Id: r.Id, Payload: r.Payload, Server: "go-plugin"}, nil
}

var desc = grpc.ServiceDesc{
	ServiceName: "trunkline.echo.v1.Echo",
	HandlerType: (*echoServer)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Unary",
		Handler: func(srv interface{}, ctx context.Context, dec func(interface{}) error, _ grpc.UnaryServerInterceptor) (interface{}, error) {
			in := new(EchoRequest)
			if err := dec(in); err != nil {
				return nil, err
			}
			return srv.(echoServer).Unary(ctx, in)
		},
	}},
	Streams: []grpc.StreamDesc{},
}

type EchoPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

func (*EchoPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	s.RegisterService(&desc, echo{})
	return nil
}

func (*EchoPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (interface{}, error) {
	return nil, errors.New("this is no host")
}

func main() {
	// So it outlives no test that was killed.
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "TRUNKLINE_PLUGIN", MagicCookieValue: "echo"},
		Plugins:         map[string]plugin.Plugin{"echo": &EchoPlugin{}},
		GRPCServer:      plugin.DefaultGRPCServer,
	})
}
