//! Settings that can't work: `connect` says so at once, with the field and the file, and never panics or hangs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use trunkline::{Connector, Endpoint, Error, Tls};

use crate::client::told::Told;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::wait::within;
use crate::tls::authority::Authority;
use crate::tls::identity::pem;
use crate::tls::server::TlsServer;

use super::connected::{LIMIT, refused, says};

/// What `connect` says about these options, wherever they are given.
#[track_caller]
pub(super) fn rejected(tls: &Tls, parts: &[&str]) {
    let endpoint = Endpoint::tcp("127.0.0.1:1").tls(tls.clone());
    let errors = [
        Connector::tcp("127.0.0.1:1")
            .tls(tls.clone())
            .connect_lazy(),
        Connector::endpoints([endpoint]).connect_lazy(),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert!(error.is_config(), "{error:?}");
        says(&error.to_string(), parts);
    }
}

/// Files of all kinds.
struct Files(Scratch);

impl Files {
    fn with(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    fn pipe(&self) -> PathBuf {
        let path = self.0.path("pipe");
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    }

    /// Nobody may read it. `None` for a user who may read everything.
    fn forbidden(&self, contents: &str) -> Option<PathBuf> {
        let path = self.with("forbidden", contents);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        if fs::read(&path).is_ok() {
            println!("skipped: this user may read every file");
            return None;
        }
        Some(path)
    }
}

/// Texts that are no certificates, and what is said of them.
fn no_certificates(key: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let broken = "-----BEGIN CERTIFICATE-----\nMIIB";
    let scrambled = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let endless = vec![b'#'; 5 * 1024 * 1024];
    vec![
        ("empty", Vec::new(), "it is empty"),
        ("text", b"hello".to_vec(), "it has no certificate in PEM"),
        (
            "key",
            key.into(),
            "it has a private key and no certificate; are certificate and key exchanged?",
        ),
        ("broken", broken.into(), "a section has no end"),
        ("scrambled", scrambled.into(), "a section is not base64"),
        ("large", endless, "it has more than 4194304 bytes"),
        (
            "der",
            vec![0x30, 0x82, 0, 0xff, 0xfe],
            "it has no certificate in PEM",
        ),
    ]
}

#[tokio::test]
async fn authorities_that_are_none() {
    let leaks = LeakCheck::start().await;
    let files = Files(Scratch::new());
    let authority = Authority::new("root");
    let key = authority.issue().finish().key_pem();
    let ca = |path: &PathBuf| Tls::new().ca_file(path);
    for (name, contents, problem) in no_certificates(&key) {
        let path = files.with(name, contents);
        rejected(&ca(&path), &["tls.ca: ", path.to_str().unwrap(), problem]);
    }
    let hollow = files.with("hollow", pem("CERTIFICATE", b"nothing"));
    rejected(&ca(&hollow), &["tls.ca: ", hollow.to_str().unwrap()]);
    let missing = files.0.path("missing");
    rejected(
        &ca(&missing),
        &["tls.ca: ", missing.to_str().unwrap(), "No such file"],
    );
    for path in [files.0.path(""), files.pipe(), "/dev/zero".into()] {
        rejected(
            &ca(&path),
            &["tls.ca: ", path.to_str().unwrap(), "it is no regular file"],
        );
    }
    if let Some(path) = files.forbidden(&authority.pem()) {
        rejected(&ca(&path), &["tls.ca: ", path.to_str().unwrap(), "denied"]);
    }
    // For a user who may read everything, too: the beginning of a process's memory is nowhere.
    #[cfg(target_os = "linux")]
    rejected(
        &ca(&"/proc/self/mem".into()),
        &["tls.ca: ", "/proc/self/mem", "Input/output error"],
    );
    // A good one beside it does not help; a text has no file's name.
    let path = files.with("text", "hello");
    rejected(
        &ca(&path).ca_pem(authority.pem()),
        &["tls.ca: ", path.to_str().unwrap()],
    );
    rejected(
        &Tls::new().ca_pem("hello"),
        &["tls.ca: the given text: it has no certificate in PEM"],
    );
    rejected(
        &Tls::new().ca_pem(key),
        &["tls.ca: the given text: it has a private key"],
    );
    leaks.finish().await;
}

#[tokio::test]
async fn identities_that_do_not_fit() {
    let leaks = LeakCheck::start().await;
    let files = Files(Scratch::new());
    let authority = Authority::new("root");
    let (own, other) = (authority.issue().finish(), authority.issue().finish());
    let (chain, key) = own.write(&files.0.path(""), "own");
    let tls = || Tls::new().ca_pem(authority.pem());
    let with = |chain: &PathBuf, key: &PathBuf| tls().identity_files(chain, key);
    for (name, contents, problem) in no_certificates(&own.key_pem()) {
        let path = files.with(name, contents);
        rejected(
            &with(&path, &key),
            &["tls.identity: ", path.to_str().unwrap(), problem],
        );
    }
    let hollow = files.with("hollow", pem("CERTIFICATE", b"nothing"));
    let parts = ["tls.identity: ", hollow.to_str().unwrap(), "can't be read"];
    rejected(&with(&hollow, &key), &parts);
    let missing = files.0.path("missing");
    let named = ["tls.identity: ", missing.to_str().unwrap(), "No such file"];
    rejected(&with(&missing, &key), &named);
    rejected(&with(&chain, &missing), &named);

    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"whatever");
    let old_style = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                     -----END RSA PRIVATE KEY-----\n";
    let keys = [
        ("empty.key", String::new(), "it is empty"),
        (
            "text.key",
            "hello".to_owned(),
            "it has no private key in PEM",
        ),
        (
            "chain.key",
            own.chain_pem(),
            "it has a certificate and no key; are certificate and key exchanged?",
        ),
        (
            "encrypted.key",
            encrypted,
            "the key is encrypted; decrypt it (openssl pkey)",
        ),
        (
            "old.key",
            old_style.to_owned(),
            "the key is encrypted; decrypt it (openssl pkey)",
        ),
        (
            "broken.key",
            "-----BEGIN PRIVATE KEY-----\nAAAA".to_owned(),
            "a section has no end",
        ),
    ];
    for (name, contents, problem) in keys {
        let path = files.with(name, contents);
        rejected(
            &with(&chain, &path),
            &["tls.identity: ", path.to_str().unwrap(), problem],
        );
    }
    let hollow = files.with("hollow.key", pem("PRIVATE KEY", b"nothing"));
    rejected(
        &with(&chain, &hollow),
        &["tls.identity: ", "the key can't be used"],
    );
    let another = files.with("other.key", other.key_pem());
    let problem = "the key does not belong to the certificate";
    rejected(
        &with(&chain, &another),
        &["tls.identity: ", another.to_str().unwrap(), problem],
    );
    let text = tls().identity_pem(own.chain_pem(), other.key_pem());
    rejected(&text, &["tls.identity: ", problem]);

    let old = authority
        .issue()
        .subject("shop")
        .expired_days_ago(2)
        .finish();
    let (chain, key) = old.write(&files.0.path(""), "expired");
    let expired = "the certificate of CN=shop can't be used: it expired 2 days ago";
    rejected(
        &with(&chain, &key),
        &["tls.identity: ", chain.to_str().unwrap(), expired],
    );
    let early = authority.issue().subject("shop").valid_in_days(3).finish();
    let (chain, key) = early.write(&files.0.path(""), "early");
    let unborn =
        "the certificate of CN=shop can't be used: it is valid only from 3 days from now on";
    rejected(
        &with(&chain, &key),
        &["tls.identity: ", chain.to_str().unwrap(), unborn],
    );
    leaks.finish().await;
}

#[tokio::test]
async fn revocation_lists_that_are_none() {
    let leaks = LeakCheck::start().await;
    let files = Files(Scratch::new());
    let authority = Authority::new("root");
    let tls = || Tls::new().ca_pem(authority.pem());
    let missing = files.0.path("missing");
    let named = ["tls.crl: ", missing.to_str().unwrap(), "No such file"];
    rejected(&tls().crl_file(&missing), &named);
    let no_list = files.with("no.crl", authority.pem());
    let problem = "it has no revocation list in PEM (-----BEGIN X509 CRL-----)";
    rejected(
        &tls().crl_file(&no_list),
        &["tls.crl: ", no_list.to_str().unwrap(), problem],
    );
    let hollow = files.with("hollow.crl", pem("X509 CRL", b"nothing"));
    rejected(
        &tls().crl_file(&hollow),
        &["tls.crl: ", hollow.to_str().unwrap()],
    );
    leaks.finish().await;
}

/// `connect` does not wait for an endpoint that can't be had.
#[tokio::test]
async fn connect_says_it_at_once() {
    let leaks = LeakCheck::start().await;
    let tls = Tls::new().ca_file("/nowhere/ca.pem");
    let connecting = Connector::tcp("127.0.0.1:1")
        .tls(tls)
        .ready_timeout(10 * LIMIT)
        .connect();
    let error: Error = within(LIMIT, "the answer", connecting).await.unwrap_err();
    assert!(error.is_config());
    says(
        &error.to_string(),
        &["tls.ca: /nowhere/ca.pem: No such file"],
    );
    leaks.finish().await;
}

/// With a root from a feature there is one.
#[cfg(not(any(feature = "native-roots", feature = "webpki-roots")))]
#[tokio::test]
async fn somebody_must_be_trusted() {
    let leaks = LeakCheck::start().await;
    let problem = "tls.ca: there is no root to trust; name one with ca_file, pin a certificate, or turn on the feature \
                   native-roots or webpki-roots";
    rejected(&Tls::new(), &[problem]);
    let error = Connector::target("https://localhost:1")
        .connect_lazy()
        .unwrap_err();
    assert!(error.is_config());
    says(&error.to_string(), &[problem]);
    leaks.finish().await;
}

/// What discovery finds is not known when the channel is made. Such an endpoint fails, and gets nothing in plaintext.
#[tokio::test]
async fn a_discovered_endpoint_with_bad_options_fails() {
    let leaks = LeakCheck::start().await;
    let server = TlsServer::tcp("a", &Authority::new("root").issue().loopback().finish());
    let bad = Endpoint::tcp(server.addr().to_string()).tls(Tls::new().ca_file("/nowhere/ca.pem"));
    let (teller, told) = Told::saying(Ok(vec![bad]));
    let text = refused(Connector::discover(told)).await;
    says(&text, &["tls.ca: /nowhere/ca.pem: No such file"]);
    let seen = server.seen();
    assert_eq!((seen.records(), seen.plaintext()), (0, 0));
    drop((teller, server));
    leaks.finish().await;
}
