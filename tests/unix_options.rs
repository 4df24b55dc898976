//! Unix sockets that are not what they should be: each is refused by name, and used again once it is put right.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::calls::unary;
use support::leak::LeakCheck;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::{wait_until, within};
use tokio::io::duplex;
use trunkline::{
    Address, Backoff, Connector, Dial, Dialing, Endpoint, EndpointStatus, Error, PoolOptions,
    Retry, Stage, State, UnixOptions,
};

const LIMIT: Duration = Duration::from_secs(10);
const MILLI: Duration = Duration::from_millis(1);

/// A user that this process is not, nor root.
const OTHER: u32 = 54_321;

/// A directory that passes all checks, with an echo server on a socket that does.
struct Place {
    server: EchoServer,
    folder: PathBuf,
    own: u32,
    _scratch: Scratch,
}

impl Place {
    fn new() -> Self {
        let scratch = Scratch::new();
        // On some systems the temporary directory is a link.
        let folder = fs::canonicalize(scratch.path("")).unwrap().join("app");
        fs::create_dir(&folder).unwrap();
        chmod(&folder, 0o755);
        let server = EchoServer::start_unix("a", folder.join("a.sock"));
        chmod(server.path(), 0o755);
        Self {
            own: fs::metadata(&folder).unwrap().uid(),
            server,
            folder,
            _scratch: scratch,
        }
    }

    fn path(&self) -> &Path {
        self.server.path()
    }

    fn may_give_away(&self) -> bool {
        if self.own != 0 {
            eprintln!("not root: files of other users are left out");
        }
        self.own == 0
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn checks() -> UnixOptions {
    UnixOptions::new()
}

fn connector(path: &Path, options: UnixOptions) -> Connector {
    eager(Connector::unix(path).unix_options(options))
}

/// Dials again soon.
fn eager(connector: Connector) -> Connector {
    let backoff = Backoff::dialling().initial(5 * MILLI).max(20 * MILLI);
    let pool = PoolOptions::new().dial_backoff(backoff);
    connector.pool(pool).retry(Retry::none())
}

async fn accepted(connector: Connector) {
    let channel = within(LIMIT, "connecting", connector.connect()).await;
    let channel = channel.unwrap();
    assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
}

/// Why the only endpoint is refused. No connection comes about, calls learn the same as the status tells, and that nothing
/// was sent.
async fn refused(connector: Connector) -> String {
    let channel = connector.connect_lazy().unwrap();
    let failed = || {
        let endpoints = channel.status().endpoints;
        let failed = |it: &EndpointStatus| it.state == State::TransientFailure;
        endpoints.first().is_some_and(failed)
    };
    wait_until(LIMIT, failed).await;
    let status = within(LIMIT, "a call", unary(&channel, 1)).await;
    let status = status.unwrap_err();
    let error = Error::from_status(&status).expect("an error of the crate's own");
    assert!(!error.maybe_processed(), "{error:?}");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let endpoint = channel.status().endpoints.remove(0);
    assert!(endpoint.connection_attempts_failed > 0);
    assert_eq!(endpoint.connection_attempts_succeeded, 0, "{endpoint:?}");
    let text = endpoint.last_error.expect("the status says why");
    assert!(status.message().contains(&text), "{text} {status:?}");
    text
}

/// The refusal has all of these parts.
async fn refused_as(connector: Connector, parts: &[&str]) {
    let text = refused(connector).await;
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn what_is_as_it_should_be_is_used() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let own = place.own;
    let pid = std::process::id();
    for options in [
        checks(),
        UnixOptions::strict(),
        UnixOptions::strict().owner(own).peer_uid(own).peer_pid(pid),
        checks().owner(own),
        checks().check_parents(true),
        checks().refuse_symlinks(true).refuse_world_writable(true),
        checks().peer_uid(own),
        checks().peer_pid(pid),
    ] {
        accepted(connector(place.path(), options)).await;
    }
    drop(place);
    leaks.finish().await;
}

/// The process that an endpoint must be is asked for beside what the channel asks for.
#[tokio::test]
async fn the_process_of_an_endpoint_takes_nothing_away() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let pid = std::process::id();
    let to = |pid: u32, options: UnixOptions| {
        Connector::endpoints([Endpoint::unix(place.path()).peer_pid(pid)]).unix_options(options)
    };
    accepted(to(pid, UnixOptions::strict())).await;
    refused_as(to(1, UnixOptions::strict()), &["has pid", "not 1"]).await;
    refused_as(to(pid, checks().owner(OTHER)), &["UnixOptions::owner"]).await;
    drop(place);
    leaks.finish().await;
}

#[tokio::test]
async fn a_foreign_owner_is_refused() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let (path, own) = (place.path(), place.own);
    let name = format!("{path:?} belongs to uid {own}, not to uid {OTHER}");
    refused_as(
        connector(path, checks().owner(OTHER)),
        &[&name, "UnixOptions::owner"],
    )
    .await;
    if place.may_give_away() {
        chown(path, Some(OTHER), None).unwrap();
        let name = format!("{path:?} belongs to uid {OTHER}, not to uid 0");
        refused_as(connector(path, UnixOptions::strict()), &[&name]).await;
        accepted(connector(path, UnixOptions::strict().owner(OTHER))).await;
        accepted(connector(path, checks())).await;
    }
    drop(place);
    leaks.finish().await;
}

#[tokio::test]
async fn a_socket_that_everybody_may_write_to_is_refused_until_that_is_put_right() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let path = place.path();
    for mode in [0o777, 0o722, 0o702] {
        chmod(path, mode);
        let named = format!("everybody may write to {path:?} (mode {mode:04o})");
        let only = checks().refuse_world_writable(true);
        for options in [only, UnixOptions::strict()] {
            refused_as(connector(path, options), &[&named, "chmod o-w"]).await;
        }
        accepted(connector(path, checks())).await;
    }
    // A group is no more than its members.
    chmod(path, 0o770);
    accepted(connector(path, UnixOptions::strict())).await;

    chmod(path, 0o777);
    let channel = connector(path, UnixOptions::strict()).connect_lazy();
    let channel = channel.unwrap();
    unary(&channel, 1).await.unwrap_err();
    let failed = || channel.status().endpoints[0].connection_attempts_failed;
    wait_until(LIMIT, || failed() >= 2).await;
    chmod(path, 0o755);
    wait_until(LIMIT, || channel.status().state == State::Ready).await;
    assert_eq!(unary(&channel, 2).await.unwrap().server, "a");
    drop((channel, place));
    leaks.finish().await;
}

#[tokio::test]
async fn directories_within_others_reach_are_refused() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let (path, folder) = (place.path(), &*place.folder);
    let only = || checks().check_parents(true);
    chmod(folder, 0o777);
    let named = format!("everybody may write to {folder:?} (mode 0777) and replace the socket");
    for options in [only(), UnixOptions::strict()] {
        refused_as(connector(path, options), &[&named, "chmod +t"]).await;
    }
    accepted(connector(path, checks().refuse_world_writable(true))).await;
    // Nobody but an entry's owner may replace it there.
    chmod(folder, 0o1777);
    accepted(connector(path, UnixOptions::strict())).await;
    chmod(folder, 0o755);

    // One further up counts as much.
    let above = folder.parent().unwrap();
    chmod(above, 0o777);
    let named = format!("everybody may write to {above:?} ");
    refused_as(connector(path, only()), &[&named]).await;
    chmod(above, 0o755);

    if place.may_give_away() {
        chown(folder, Some(OTHER), None).unwrap();
        let named = format!("{folder:?} belongs to uid {OTHER}, not to root or uid 0");
        for options in [only(), UnixOptions::strict()] {
            refused_as(connector(path, options), &[&named]).await;
        }
        accepted(connector(path, only().owner(0).check_parents(false))).await;
        chown(path, Some(OTHER), None).unwrap();
        accepted(connector(path, UnixOptions::strict().owner(OTHER))).await;
    }
    drop(place);
    leaks.finish().await;
}

#[tokio::test]
async fn links_are_refused() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let above = place.folder.parent().unwrap();
    let (link, folder_link) = (above.join("link"), above.join("folder"));
    symlink(place.path(), &link).unwrap();
    symlink(&place.folder, &folder_link).unwrap();
    for (path, named) in [
        (link.clone(), &link),
        (folder_link.join("a.sock"), &folder_link),
    ] {
        for options in [
            checks().refuse_symlinks(true),
            checks().check_parents(true),
            UnixOptions::strict(),
        ] {
            let named = format!("{named:?} is a symbolic link");
            refused_as(connector(&path, options), &[&named, "realpath"]).await;
        }
        // What a link leads to is looked at, not the link, to which everybody may write.
        accepted(connector(&path, checks().refuse_world_writable(true))).await;
        accepted(connector(&path, checks().owner(place.own))).await;
        let parts = ["not to uid 54321"];
        refused_as(connector(&path, checks().owner(OTHER)), &parts).await;
        accepted(connector(&path, checks())).await;
    }
    let dangling = above.join("dangling");
    symlink(above.join("nothing"), &dangling).unwrap();
    let parts = ["there is no such file"];
    refused_as(connector(&dangling, checks().owner(0)), &parts).await;
    drop(place);
    leaks.finish().await;
}

#[tokio::test]
async fn what_is_no_socket_is_refused() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let file = place.folder.join("file");
    fs::write(&file, "").unwrap();
    let directory = place.folder.join("directory");
    fs::create_dir(&directory).unwrap();
    let missing = place.folder.join("missing/a.sock");
    for (path, part) in [
        (&*file, "is a regular file, not a socket"),
        (&*directory, "is a directory, not a socket"),
        (Path::new("/dev/null"), "is a special file, not a socket"),
        (&*missing, "there is no such file"),
    ] {
        for options in [
            checks(),
            checks().refuse_symlinks(true),
            UnixOptions::strict().peer_uid(None),
        ] {
            refused_as(connector(path, options), &[part]).await;
        }
    }
    drop(place);
    leaks.finish().await;
}

#[tokio::test]
async fn a_foreign_peer_is_refused() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let (path, own, pid) = (place.path(), place.own, std::process::id());
    let other_user = checks().peer_uid(OTHER);
    let named = format!("runs as uid {own}, not as uid {OTHER}");
    refused_as(connector(path, other_user.clone()), &[&named]).await;
    let other_process = checks().peer_pid(pid + 1);
    let named = format!("has pid {pid}, not {}", pid + 1);
    refused_as(connector(path, other_process), &[&named]).await;
    assert_eq!(place.server.journal().started(), 0);

    // The error is typed, and of the stage in which it came about.
    let error = connector(path, other_user).ready_timeout(300 * MILLI);
    let error = error.connect().await.unwrap_err();
    assert_eq!(error.stage(), Some(Stage::Connect));
    assert!(error.is_timeout() && !error.maybe_processed(), "{error:?}");
    drop(place);
    leaks.finish().await;
}

#[tokio::test]
async fn an_endpoints_own_options_replace_the_channels() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let endpoint = || Endpoint::unix(place.path());
    let with = |own: Option<UnixOptions>, all: UnixOptions| {
        let endpoint = own.map_or(endpoint(), |own| endpoint().unix_options(own));
        eager(Connector::endpoints([endpoint]).unix_options(all))
    };
    let wrong = || checks().owner(OTHER);
    refused_as(with(None, wrong()), &["belongs to"]).await;
    accepted(with(Some(checks()), wrong())).await;
    refused_as(with(Some(wrong()), checks()), &["belongs to"]).await;

    // With other options it is another endpoint: the one that passes gets all calls.
    let both = [endpoint(), endpoint().unix_options(wrong())];
    let channel = eager(Connector::endpoints(both)).connect().await.unwrap();
    let failed = || {
        let endpoints = channel.status().endpoints;
        endpoints[1].state == State::TransientFailure
    };
    wait_until(LIMIT, failed).await;
    for id in 0..10 {
        unary(&channel, id).await.unwrap();
    }
    drop((channel, place));
    leaks.finish().await;
}

#[tokio::test]
async fn tcp_is_not_affected() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let endpoint = client::calls::endpoint(&server);
    accepted(Connector::endpoints([endpoint.clone()]).unix_options(UnixOptions::strict())).await;
    let strict = endpoint.clone().unix_options(UnixOptions::strict());
    accepted(Connector::endpoints([strict.clone()])).await;
    // Nor is it another endpoint.
    let error = Connector::endpoints([endpoint, strict]).connect_lazy();
    assert!(error.unwrap_err().to_string().contains("given twice"));
    drop(server);
    leaks.finish().await;
}

/// As many bytes as a socket's address has room for.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_longest_path_is_used() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    let used = place.folder.as_os_str().len() + 1;
    let path = place.folder.join("a".repeat(107 - used));
    let server = EchoServer::start_unix("a", &path);
    chmod(&path, 0o755);
    accepted(connector(&path, UnixOptions::strict())).await;
    let name = path.file_name().unwrap().to_str().unwrap();
    let longer = place.folder.join(format!("{name}a"));
    let error = connector(&longer, checks()).connect_lazy().unwrap_err();
    assert!(error.is_config(), "{error:?}");
    assert!(error.to_string().contains("107 bytes"), "{error}");
    drop((server, place));
    leaks.finish().await;
}

/// A dialler whose streams no kernel knows.
#[derive(Debug)]
struct Memory;

impl Dial for Memory {
    fn dial<'a>(&'a self, _: &'a Address) -> Dialing<'a> {
        Box::pin(async {
            let (ours, _theirs) = duplex(1024);
            Ok(Box::new(ours) as _)
        })
    }
}

#[tokio::test]
async fn a_stream_that_has_no_peer_is_refused() {
    let leaks = LeakCheck::start().await;
    let place = Place::new();
    for options in [
        checks().peer_uid(place.own),
        checks().peer_pid(1),
        UnixOptions::strict(),
    ] {
        let connector = connector(place.path(), options).dialer(Memory);
        let parts = [
            "can't be asked who is at its other end",
            "tokio::net::UnixStream",
        ];
        refused_as(connector, &parts).await;
    }
    // The file is looked at whoever dials.
    let wrong = checks().owner(OTHER);
    let connector = connector(place.path(), wrong).dialer(Memory);
    refused_as(connector, &["belongs to uid"]).await;
    drop(place);
    leaks.finish().await;
}

/// Abstract names, which have no file.
#[cfg(target_os = "linux")]
mod abstract_names {
    use std::env;
    use std::io::Read as _;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use support::behaviour::Behaviour;
    use support::echo::EchoService;
    use support::journal::Journal;
    use tokio::sync::oneshot;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::transport::Server;
    use trunkline_proto::echo_server::EchoServer as Service;

    use super::*;

    fn listen(name: &str) -> UnixListener {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        UnixListener::bind_addr(&address).unwrap()
    }

    fn named(name: &str, options: UnixOptions) -> Connector {
        connector(Path::new(&format!("@{name}")), options)
    }

    #[tokio::test]
    async fn their_peers_are_looked_at() {
        let leaks = LeakCheck::start().await;
        let name = format!("trunkline-unix-options-{}", std::process::id());
        let listener = listen(&name);
        listener.set_nonblocking(true).unwrap();
        let incoming = tokio::net::UnixListener::from_std(listener).unwrap();
        let service = Service::new(EchoService {
            name: "a".into(),
            journal: Arc::<Journal>::default(),
            behaviour: Arc::<Behaviour>::default(),
        });
        let (end, ended) = oneshot::channel::<()>();
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(UnixListenerStream::new(incoming), async {
                let _ = ended.await;
            });
        let serving = tokio::spawn(serving);
        let own = Place::new().own;
        accepted(named(&name, UnixOptions::strict())).await;
        accepted(named(&name, UnixOptions::strict().peer_uid(own))).await;
        // They have no owner.
        accepted(named(&name, checks().owner(OTHER))).await;
        let text = refused(named(&name, UnixOptions::strict().peer_uid(OTHER))).await;
        assert!(text.contains("runs as uid"), "{text}");
        let text = refused(named(&name, UnixOptions::strict()).dialer(Memory)).await;
        assert!(text.contains("can't be asked"), "{text}");
        drop(end);
        serving.await.unwrap().unwrap();
        leaks.finish().await;
    }

    /// Tells the other process where to listen.
    const NAME: &str = "TRUNKLINE_LISTEN";

    /// What one has not created oneself, anybody else may have.
    #[tokio::test]
    async fn another_users_process_is_refused_under_strict() {
        let leaks = LeakCheck::start().await;
        if !Place::new().may_give_away() {
            return leaks.finish().await;
        }
        let name = format!("trunkline-other-user-{}", std::process::id());
        let other = Command::new(env::current_exe().unwrap())
            .args(["--exact", "abstract_names::listens", "--ignored"])
            .env(NAME, &name)
            .uid(OTHER)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        // That user may have no way to this program.
        let mut other = match other {
            Ok(other) => other,
            Err(error) => {
                eprintln!("no process of another user: {error}");
                return leaks.finish().await;
            }
        };
        let channel = named(&name, UnixOptions::strict()).connect_lazy().unwrap();
        let error = || channel.status().endpoints.first()?.last_error.clone();
        let words = format!("runs as uid {OTHER}, not as uid 0");
        wait_until(LIMIT, || error().is_some_and(|it| it.contains(&words))).await;
        drop(channel);
        let text = refused(named(&name, UnixOptions::strict())).await;
        assert!(text.contains(&words), "{text}");
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
        leaks.finish().await;
    }

    #[test]
    #[ignore = "a part of the test above, which runs it in another process"]
    fn listens() {
        let Ok(name) = env::var(NAME) else { return };
        let _listener = listen(&name);
        // Until the other test has seen enough.
        let _ = std::io::stdin().read(&mut [0]);
    }
}
