//! What users say about TLS.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

use super::certificate::Certificate;
use super::names::Name;
use super::pem::Pem;
use super::provider::{self, KNOWS_P521};

/// How connections are encrypted, whom they trust, and who this side is.
///
/// ```no_run
/// use trunkline::{Connector, Tls};
///
/// # async fn connect() -> Result<(), trunkline::Error> {
/// let tls = Tls::new()
///     .ca_file("/etc/app/ca.pem")
///     .identity_files("/etc/app/tls.crt", "/etc/app/tls.key");
/// let channel = Connector::tcp("server1.internal:50051").tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Without any of these, an `https://` endpoint is encrypted with TLS 1.2 or 1.3, and its certificate must be good for
/// the host that was named, and signed by a root that the system (feature `native-roots`) or Mozilla (`webpki-roots`)
/// trusts. With [`ca_file`](Self::ca_file) or [`ca_pem`](Self::ca_pem) it must be signed by one of those, and public roots
/// are out of the game unless they are named too.
///
/// Files are looked at again every [`reload_interval`](Self::reload_interval). When one changes, all are read and checked;
/// if they are good, new connections use them, and old ones finish their calls and are replaced one by one. If not, what
/// was there stays, and status and log say why. A connection is replaced once there is another one: if its server is not
/// trusted any more, no other one can be made, and it goes on until it ends. To end it at once, take the endpoint out.
///
/// Revocation is checked only against lists that are given ([`crl_file`](Self::crl_file)), when a connection is made. A
/// resumed session is checked again neither for that nor for its certificate's dates; once a file has changed, none is
/// resumed.
///
/// With endpoints from discovery, the host names are the source's. Whoever can register endpoints there and has a
/// certificate of a trusted root is trusted; with public roots, name a [`server_name`](Self::server_name) or
/// [`allow_sans`](Self::allow_sans).
///
/// The setters take any value; the connector's `connect` reads and checks everything, and names the field. It holds up its
/// thread while it reads; a file that takes more than 5 s is an error. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct Tls {
    pub(super) options: Arc<Options>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) authorities: Vec<Pem>,
    pub(super) native_roots: bool,
    pub(super) webpki_roots: bool,
    /// Certificate chain and key.
    pub(super) identity: Option<(Pem, Pem)>,
    pub(super) server_name: Option<String>,
    pub(super) min_version: TlsVersion,
    pub(super) cipher_suites: Vec<String>,
    pub(super) resumption: bool,
    pub(super) key_log: bool,
    pub(super) pinned: Vec<Vec<u8>>,
    pub(super) allowed_sans: Option<Vec<String>>,
    pub(super) revocations: Vec<Pem>,
    pub(super) any_name: bool,
    pub(super) reload_interval: Duration,
    /// `None` goes by the certificate's lifetime.
    pub(super) expiry_warning: Option<Duration>,
}

/// A version of TLS. Older ones are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Tls {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            options: Arc::new(Options {
                authorities: Vec::new(),
                native_roots: false,
                webpki_roots: false,
                identity: None,
                server_name: None,
                min_version: TlsVersion::V1_2,
                cipher_suites: Vec::new(),
                resumption: true,
                key_log: false,
                pinned: Vec::new(),
                allowed_sans: None,
                revocations: Vec::new(),
                any_name: false,
                reload_interval: Duration::from_secs(10),
                expiry_warning: None,
            }),
        }
    }

    /// Settings for services that are all one's own: TLS 1.3 only.
    pub fn production() -> Self {
        Self::new().min_version(TlsVersion::V1_3)
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(Arc::make_mut(&mut self.options));
        self
    }

    /// Trusts the certificates in this PEM text. May be given several times.
    pub fn ca_pem(self, pem: impl Into<Vec<u8>>) -> Self {
        let pem = Pem::bytes(pem);
        self.with(|options| options.authorities.push(pem))
    }

    /// Trusts the certificates in this PEM file. May be given several times.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        let pem = Pem::File(path.into());
        self.with(|options| options.authorities.push(pem))
    }

    /// Trusts the operating system's roots, read when the channel is made, and again whenever a file of these options has
    /// changed.
    #[cfg(feature = "native-roots")]
    pub fn native_roots(self) -> Self {
        self.with(|options| options.native_roots = true)
    }

    /// Trusts Mozilla's roots, as they were when the crate `webpki-roots` was released.
    #[cfg(feature = "webpki-roots")]
    pub fn webpki_roots(self) -> Self {
        self.with(|options| options.webpki_roots = true)
    }

    /// Who this side is, for servers that ask: a PEM chain, its own certificate first, and the key to that in PEM
    /// (PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub fn identity_pem(self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let identity = (Pem::bytes(chain), Pem::bytes(key));
        self.with(|options| options.identity = Some(identity))
    }

    /// The same from files.
    pub fn identity_files(self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let identity = (Pem::File(chain.into()), Pem::File(key.into()));
        self.with(|options| options.identity = Some(identity))
    }

    /// The name that servers' certificates must be good for. Default: the endpoint's host name or IP address, as the user
    /// or discovery wrote it. Unix sockets have none, so there it must be given, unless a certificate is
    /// [pinned](Self::pin_certificate) or [`allow_sans`](Self::allow_sans) takes its place.
    pub fn server_name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|options| options.server_name = Some(name))
    }

    /// The oldest version to speak. Default TLS 1.2; [`production`](Self::production) has 1.3.
    pub fn min_version(self, version: TlsVersion) -> Self {
        self.with(|options| options.min_version = version)
    }

    /// The cipher suites to offer, by their IANA names (`TLS13_AES_256_GCM_SHA384` or `TLS_AES_256_GCM_SHA384`), the
    /// preferred one first. Default: those of the provider, which are all good ones.
    pub fn cipher_suites<I: IntoIterator<Item: Into<String>>>(self, names: I) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        self.with(|options| options.cipher_suites = names)
    }

    /// Whether a new connection may resume a session of an older one, which saves it a round trip or a signature.
    /// Default yes.
    pub fn resumption(self, yes: bool) -> Self {
        self.with(|options| options.resumption = yes)
    }

    /// Whether the secrets of all connections are appended to the file that `SSLKEYLOGFILE` names, so that a capture can
    /// be decrypted. Default no, whatever that variable says. It is logged when it is on.
    pub fn key_log(self, yes: bool) -> Self {
        self.with(|options| options.key_log = yes)
    }

    /// Accepts this certificate (DER) and no other, whoever signed it, however old it is, and whatever names it has:
    /// the peer must hold its key. For self-signed peers. May be given several times. Authorities, revocation lists and
    /// allowed names have nothing to say then, so `connect` refuses them beside it.
    pub fn pin_certificate(self, der: impl Into<Vec<u8>>) -> Self {
        let der = der.into();
        self.with(|options| options.pinned.push(der))
    }

    /// The identities of which a server must have one, in place of the host's name: a SPIFFE ID
    /// (`spiffe://example.org/payments`) or another URI to the letter, a DNS name, or an IP address; each is compared with
    /// subject alternative names of its own kind. The chain is verified as ever, and [`server_name`](Self::server_name) is
    /// then only what the server is told. May be given several times; there must be one in the end.
    pub fn allow_sans<I: IntoIterator<Item: Into<String>>>(self, names: I) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        self.with(|options| options.allowed_sans.get_or_insert_default().extend(names))
    }

    /// A PEM text with revocation lists: what they name is refused, and so is a certificate whose issuer none of them is
    /// from. How old a list is does not matter.
    pub fn crl_pem(self, pem: impl Into<Vec<u8>>) -> Self {
        let pem = Pem::bytes(pem);
        self.with(|options| options.revocations.push(pem))
    }

    /// The same from a file.
    pub fn crl_file(self, path: impl Into<PathBuf>) -> Self {
        let pem = Pem::File(path.into());
        self.with(|options| options.revocations.push(pem))
    }

    /// How often files are looked at. Default 10 s; from 10 ms to a day. They are read, not watched: Kubernetes replaces
    /// directories under them, which file events do not show.
    pub fn reload_interval(self, interval: Duration) -> Self {
        self.with(|options| options.reload_interval = interval)
    }

    /// From how long before its end on a certificate is warned of, once in the log: this side's, its issuers' that come
    /// with it, and those of servers that there are connections to. 0 to ten years, whatever its lifetime. Default: 30
    /// days, or a third of the certificate's lifetime where that is less, so that one for an hour (SPIFFE) is warned of
    /// only when its replacement is late.
    pub fn expiry_warning(self, before: Duration) -> Self {
        self.with(|options| options.expiry_warning = Some(before))
    }

    /// The door to what is dangerous.
    pub fn dangerous(self) -> DangerousTls {
        DangerousTls(self)
    }

    pub(crate) fn needs_no_name(&self) -> bool {
        let options = &self.options;
        options.any_name || !options.pinned.is_empty() || options.allowed_sans.is_some()
    }

    /// # Errors
    ///
    /// A configuration error, if one of them is nothing that a certificate can be good for.
    pub(super) fn allowed_names(&self) -> Result<Option<Vec<Name>>, Error> {
        let Some(texts) = &self.options.allowed_sans else {
            return Ok(None);
        };
        let bad = |problem: String| Error::config("tls.allow_sans", problem);
        if texts.is_empty() {
            return Err(bad(
                "the list is empty, so nobody would be allowed; name one".to_owned(),
            ));
        }
        let name = |text: &String| {
            let problem = || bad(format!("{text:?} is no URI, no DNS name and no IP address"));
            Name::parse(text).ok_or_else(problem)
        };
        texts.iter().map(name).collect::<Result<_, _>>().map(Some)
    }

    /// What can be checked without reading a file.
    pub(super) fn validate(&self) -> Result<(), Error> {
        let options = &self.options;
        if let Some(name) = &options.server_name
            && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            let problem = format!("{name:?} is no DNS name and no IP address");
            return Err(Error::config("tls.server_name", problem));
        }
        let unreadable = |it: &Vec<u8>| Certificate::from_der(it).is_none();
        if options.pinned.iter().any(unreadable) {
            let problem = "it is no certificate in DER; one in PEM must be converted (openssl x509 -outform der)";
            return Err(Error::config("tls.pin_certificate", problem));
        }
        for der in &options.pinned {
            let bad = |problem| Error::config("tls.pin_certificate", problem);
            provider::check_key(der, KNOWS_P521).map_err(bad)?;
        }
        self.allowed_names()?;
        let others = !options.authorities.is_empty()
            || options.native_roots
            || options.webpki_roots
            || !options.revocations.is_empty()
            || options.allowed_sans.is_some();
        if !options.pinned.is_empty() && others {
            let problem = "authorities, revocation lists and allowed names have no effect beside it; leave them out";
            return Err(Error::config("tls.pin_certificate", problem));
        }
        let interval = options.reload_interval;
        if interval < Duration::from_millis(10) || interval > MAX_INTERVAL {
            return Err(Error::config(
                "tls.reload_interval",
                "must be from 10 ms to a day",
            ));
        }
        if options.expiry_warning > Some(DAY * 3660) {
            return Err(Error::config(
                "tls.expiry_warning",
                "must be at most ten years",
            ));
        }
        provider::chosen(options).map(|_| ())
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let options = &self.options;
        let identity = options
            .identity
            .iter()
            .flat_map(|(chain, key)| [chain, key]);
        // In the order in which they are made use of: the error names the first that is missing.
        let all = options
            .authorities
            .iter()
            .chain(&options.revocations)
            .chain(identity);
        all.filter_map(Pem::file)
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

/// Of what tells options apart and is no secret.
impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let options = &self.options;
        options.server_name.hash(state);
        options.allowed_sans.hash(state);
        options.pinned.hash(state);
        options.min_version.hash(state);
        options.authorities.hash(state);
        options.revocations.hash(state);
        // The chain goes with the key, which is a secret.
        let chain = options.identity.as_ref().map(|(chain, _)| chain);
        chain.hash(state);
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let mut shown = f.debug_struct("Tls");
        if options.any_name {
            shown.field("dangerous", &"host names are not checked");
        }
        shown
            .field("authorities", &options.authorities)
            .field("identity", &options.identity)
            .field("server_name", &options.server_name)
            .field("min_version", &options.min_version)
            .field("cipher_suites", &options.cipher_suites)
            .field("pinned", &options.pinned.len())
            .field("allowed_sans", &options.allowed_sans)
            .field("revocations", &options.revocations)
            .field("key_log", &options.key_log)
            .finish_non_exhaustive()
    }
}

/// What makes TLS weaker than it looks. It shows in `Debug`, and in the log when the channel is made.
#[derive(Clone, Debug)]
#[must_use]
pub struct DangerousTls(Tls);

impl DangerousTls {
    /// Does not check for which names a certificate is good: whoever has any certificate of a trusted root can pose as
    /// the server. [`Tls::allow_sans`], [`Tls::server_name`] and [`Tls::pin_certificate`] are the safe ways.
    pub fn skip_host_names(self) -> Tls {
        self.0.with(|options| options.any_name = true)
    }
}
