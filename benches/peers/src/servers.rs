//! Server processes, as children of this one.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::options::{Net, ServerKind};
use crate::target::Address;
use crate::{Failure, process, tls};

/// What to start.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub server: ServerKind,
    pub listen: Vec<Address>,
    pub replies: usize,
    pub delay: Duration,
    /// The calls that each address works on at the same time (tonic, unary).
    pub concurrency: Option<usize>,
    pub cpu: Option<usize>,
    /// TLS, with what is in this directory.
    pub credentials: Option<PathBuf>,
    /// Whether sessions can be resumed.
    pub tickets: bool,
    /// Whether each connection ends after its first call.
    pub one_call: bool,
    /// Whether connections end with RST instead of FIN (tonic).
    pub reset: bool,
}

impl ServerOptions {
    /// Where it listens and runs is still to be said.
    pub fn new(server: ServerKind, replies: usize) -> Self {
        Self {
            server,
            listen: Vec::new(),
            replies,
            delay: Duration::ZERO,
            concurrency: None,
            cpu: None,
            credentials: None,
            tickets: true,
            one_call: false,
            reset: false,
        }
    }
}

/// On which CPUs the processes run.
pub struct Placement {
    pub client: Option<usize>,
    pub server: Option<usize>,
    /// The client's threads.
    pub workers: usize,
    cpus: usize,
}

impl Placement {
    /// One worker: the client on the first CPU that this process may use, servers on the second. With more workers
    /// the client goes where the scheduler puts it, and the servers stay.
    pub fn of(workers: usize) -> Result<Self, Failure> {
        let cpus = process::cpus()?;
        let first = cpus.first().copied();
        Ok(Self {
            client: first.filter(|_| workers == 1),
            server: cpus.get(1).copied().or(first),
            workers,
            cpus: cpus.len(),
        })
    }

    /// In words.
    pub fn describe(&self) -> String {
        let place =
            |cpu: Option<usize>| cpu.map_or("any CPU".to_owned(), |cpu| format!("CPU {cpu}"));
        let (client, server) = (place(self.client), place(self.server));
        let workers = match self.workers {
            1 => "1 worker".to_owned(),
            more => format!("{more} workers"),
        };
        let warning = match self.cpus {
            1 => {
                "; **there is no second CPU: client and server take turns, and rates mean little**"
            }
            _ => "",
        };
        format!("client on {client} with {workers}, servers on {server}{warning}")
    }
}

/// One server process. Dropping it kills it.
pub struct ServerProcess {
    child: Child,
    said: Option<BufReader<ChildStdout>>,
    options: ServerOptions,
    /// Where it listens, in the order of the options.
    pub addresses: Vec<Address>,
}

impl ServerProcess {
    pub fn start(options: &ServerOptions) -> Result<Self, Failure> {
        let listen: Vec<_> = options.listen.iter().map(Address::to_string).collect();
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["serve", "--child", "--server", options.server.name()])
            .args(["--listen", &listen.join(",")])
            .args(["--replies", &options.replies.to_string()])
            .args(["--delay-ms", &options.delay.as_millis().to_string()]);
        if let Some(concurrency) = options.concurrency {
            command.args(["--concurrency", &concurrency.to_string()]);
        }
        if let Some(cpu) = options.cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        if let Some(credentials) = &options.credentials {
            command.arg("--credentials").arg(credentials);
        }
        if !options.tickets {
            command.arg("--no-tickets");
        }
        if options.one_call {
            command.arg("--one-call");
        }
        if options.reset {
            command.arg("--reset");
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let mut said = child.stdout.take().map(BufReader::new);
        if let Some(said) = &mut said {
            said.read_line(&mut line)?;
        }
        let addresses: Result<Vec<_>, _> = line.trim().split(',').map(str::parse).collect();
        let mut process = Self {
            child,
            said,
            options: options.clone(),
            addresses: Vec::new(),
        };
        process.addresses = addresses.map_err(|error| format!("no server: {error}"))?;
        Ok(process)
    }

    /// Starts it anew, at the same addresses.
    pub fn restart(&mut self) -> Result<(), Failure> {
        let options = ServerOptions {
            listen: self.addresses.clone(),
            ..self.options.clone()
        };
        *self = Self::start(&options)?;
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Ends it in good order. Gives its last words.
    pub fn finish(mut self) -> Result<String, Failure> {
        self.signal(Signal::SIGTERM)?;
        let mut words = String::new();
        if let Some(mut said) = self.said.take() {
            said.read_to_string(&mut words)?;
        }
        Ok(words)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool, Failure> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for Unix sockets and keys, gone when dropped.
pub struct SocketDirectory(PathBuf);

impl SocketDirectory {
    pub fn create() -> Result<Self, Failure> {
        let path = env::temp_dir().join(format!("trunkline-peers-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Makes what TLS needs, and gives the directory it is in.
    pub fn credentials(&self) -> Result<PathBuf, Failure> {
        tls::make(&self.0)?;
        Ok(self.0.clone())
    }

    /// As many addresses to listen at.
    pub fn addresses(&self, net: Net, count: usize) -> Result<Vec<Address>, Failure> {
        (0..count)
            .map(|number| match net {
                Net::Tcp => "127.0.0.1:0".parse(),
                Net::Unix => Ok(Address::Unix(self.0.join(format!("{number}.sock")))),
            })
            .collect()
    }
}

impl Drop for SocketDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
