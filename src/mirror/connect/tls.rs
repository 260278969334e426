//! TLS, as `sslmode` and related parameters ask for it.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::verifier::{ServerTrust, Verifier};
use crate::mirror::MirrorError;

/// `sslmode`, from the least to the most secure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Disable,
    /// Not encrypted, unless the server refuses that.
    Allow,
    /// Encrypted, unless the server does not offer it.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    pub(super) const ALL: [Self; 6] = [
        Mode::Disable,
        Mode::Allow,
        Mode::Prefer,
        Mode::Require,
        Mode::VerifyCa,
        Mode::VerifyFull,
    ];

    /// The word in the address.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Disable => "disable",
            Mode::Allow => "allow",
            Mode::Prefer => "prefer",
            Mode::Require => "require",
            Mode::VerifyCa => "verify-ca",
            Mode::VerifyFull => "verify-full",
        }
    }
}

/// The authorities that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// The system's.
    System,
    File(PathBuf),
}

/// The parameters for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) mode: Mode,
    pub(super) roots: Option<Roots>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    /// Where to look for files that are not given.
    pub(super) home: Option<PathBuf>,
    /// Whether to send the server's name (SNI).
    pub(super) sends_name: bool,
    /// Whether TLS starts with the first byte, before PostgreSQL's protocol.
    pub(super) is_direct: bool,
    pub(super) only_13: bool,
}

impl Tls {
    /// Prepares the handshake. The files are read each time, because certificates are renewed while
    /// the daemon runs.
    ///
    /// # Errors
    /// A file is missing or cannot be used.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, MirrorError> {
        let versions: &[_] = if self.only_13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
        let builder = ClientConfig::builder_with_protocol_versions(versions);
        let verifier = Verifier {
            trust: self.trust()?,
            algorithms: builder.crypto_provider().signature_verification_algorithms,
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match self.identity()? {
            Some((file, certificates, key)) => builder
                .with_client_auth_cert(certificates, key)
                .map_err(|error| wrong("sslcert", &file, &error.to_string(), "set sslkey to the key of sslcert"))?,
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = self.sends_name;
        if self.is_direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    /// Whether a server that shows no trusted certificate is refused. An unencrypted connection
    /// shows none either.
    pub(super) fn checks(&self) -> bool {
        self.mode >= Mode::VerifyCa || self.roots_file().is_some() || self.roots == Some(Roots::System)
    }

    /// The file of the authorities, if there is one. As with libpq, an existing file makes
    /// `require` check the certificate.
    fn roots_file(&self) -> Option<PathBuf> {
        match &self.roots {
            Some(Roots::System) => None,
            Some(Roots::File(file)) => Some(file.clone()),
            None if self.mode < Mode::Require => None,
            None => self
                .default("root.crt")
                .filter(|file| self.mode > Mode::Require || file.exists()),
        }
    }

    fn trust(&self) -> Result<ServerTrust, MirrorError> {
        if !self.checks() {
            return Ok(ServerTrust::Any);
        }
        let (certificates, file) = match (&self.roots, self.roots_file()) {
            (Some(Roots::System), _) => (rustls_native_certs::load_native_certs().certs, PathBuf::from("system")),
            (_, Some(file)) => (certificates("sslrootcert", &file, AUTHORITY)?, file),
            (_, None) => return Err(wrong("sslrootcert", Path::new(""), "it is left out", AUTHORITY)),
        };
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if added == 0 {
            return Err(wrong("sslrootcert", &file, "it contains no certificate", AUTHORITY));
        }
        let chain = WebPkiServerVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|error| wrong("sslrootcert", &file, &error.to_string(), AUTHORITY))?;
        Ok(ServerTrust::Signed {
            chain,
            roots: certificates,
            checks_name: self.mode == Mode::VerifyFull,
        })
    }

    /// Returns the certificate that clerk2pg shows if the server asks for one, and its key.
    #[allow(clippy::type_complexity, reason = "a file and what is in it")]
    fn identity(&self) -> Result<Option<(PathBuf, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, MirrorError> {
        let file = match &self.certificate {
            Some(file) => file.clone(),
            None => match self.default("postgresql.crt").filter(|file| file.exists()) {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        let certificates = certificates("sslcert", &file, READABLE)?;
        let key = self
            .key
            .clone()
            .or_else(|| self.default("postgresql.key"))
            .unwrap_or_default();
        Ok(Some((file, certificates, private_key(&key)?)))
    }

    fn default(&self, name: &str) -> Option<PathBuf> {
        Some(self.home.as_ref()?.join(".postgresql").join(name))
    }
}

const AUTHORITY: &str = "set sslrootcert=FILE with the authority (CA) that signed the server's certificate, which the provider of the \
    database offers for download, or sslrootcert=system for the authorities that this machine trusts";

const READABLE: &str = "use a PEM file that clerk2pg's user can read";

fn certificates(parameter: &str, file: &Path, hint: &'static str) -> Result<Vec<CertificateDer<'static>>, MirrorError> {
    let text = fs::read(file).map_err(|error| unreadable(parameter, file, &error, hint))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(wrong(parameter, file, "it contains no certificate", hint)),
        Err(error) => Err(wrong(parameter, file, &error.to_string(), hint)),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, MirrorError> {
    let wrong = |why: &str, hint| wrong("sslkey", file, why, hint);
    let unreadable = |error| unreadable("sslkey", file, &error, READABLE);
    let metadata = fs::metadata(file).map_err(unreadable)?;
    // As with libpq: a group may read a key that root owns.
    let others = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & others != 0 {
        let hint = "run chmod 600; if root owns the file, 640 is enough";
        return Err(wrong("users other than its owner may read or write it", hint));
    }
    let text = fs::read(file).map_err(unreadable)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        if String::from_utf8_lossy(&text).contains("ENCRYPTED") {
            wrong(
                "the key is encrypted",
                "remove the password: openssl pkey -in FILE -out FILE2",
            )
        } else {
            wrong("it contains no private key", READABLE)
        }
    })
}

fn unreadable(parameter: &str, file: &Path, error: &std::io::Error, hint: &'static str) -> MirrorError {
    let why = match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    };
    wrong(parameter, file, &why, hint)
}

fn wrong(parameter: &str, file: &Path, why: &str, hint: &'static str) -> MirrorError {
    MirrorError::Address {
        place: format!("{parameter}={}", file.display()),
        why: why.to_owned(),
        hint,
    }
}
