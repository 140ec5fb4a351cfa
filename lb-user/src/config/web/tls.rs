//! `tls_server_config`: from the names of files to a configuration that serves.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{Mapping, TLS};
use crate::config::reader::Report;

/// What clients have to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientAuth {
    None,
    IfGiven,
    Required,
}

/// The files read so far.
pub(super) struct Files<'p> {
    directory: &'p Path,
    pub read: Vec<PathBuf>,
}

impl<'p> Files<'p> {
    pub fn new(directory: &'p Path) -> Self {
        Self { directory, read: Vec::new() }
    }

    /// What `parse` makes of a file's bytes; what is wrong with it is noted.
    fn load<T>(
        &mut self,
        report: &mut Report<'_>,
        (name, key, span): (&str, &str, &Range<usize>),
        what: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
    ) -> Option<T> {
        let path = self.directory.join(name);
        self.read.push(path.clone());
        let problem = match fs::read(&path).map(|bytes| parse(&bytes)) {
            Ok(Ok(parsed)) => return Some(parsed),
            Ok(Err(pem::Error::NoItemsFound)) => format!("{} holds none", path.display()),
            Ok(Err(error)) => format!("{}: {error:?}", path.display()),
            Err(error) => format!("cannot read {}: {error}", path.display()),
        };
        report.refuse(span, format!("{TLS}.{key}"), format!("a PEM file with {what}"), problem);
        None
    }
}

/// The section; none if something in it is wrong, which is noted.
pub(super) fn read(report: &mut Report<'_>, section: &Mapping<'_, '_>, files: &mut Files<'_>) -> Option<ServerConfig> {
    let file = |report: &mut Report<'_>, key: &str| {
        let file = section.text(report, key);
        if file.is_none() && section.get(key).is_none_or(|value| super::string(value).is_some()) {
            let span = section.key_span(key);
            report.note(span.start, format!("{TLS}.{key}"), "nothing", "a PEM file", format!("add a line such as `{key}: server.pem`"));
        }
        file
    };
    let (cert, key) = (file(report, "cert_file"), file(report, "key_file"));
    let certificates = cert.and_then(|(name, span)| files.load(report, (name, "cert_file", &span), "a certificate", certificates));
    let private =
        key.as_ref().and_then(|(name, span)| files.load(report, (name, "key_file", span), "a private key", PrivateKeyDer::from_pem_slice));
    let provider = Arc::new(ring::default_provider());
    let versions = versions(report, section);
    let clients = clients(report, section, files, &provider);

    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions?);
    let builder = match (builder, clients?) {
        (Ok(builder), None) => builder.with_no_client_auth(),
        (Ok(builder), Some(verifier)) => builder.with_client_cert_verifier(verifier),
        (Err(error), _) => {
            report.refuse(&section.span, TLS, "versions that the provider has", error.to_string());
            return None;
        }
    };
    match builder.with_single_cert(certificates?, private?) {
        Ok(mut config) => {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Some(config)
        }
        Err(error) => {
            let (_, span) = key?;
            let remedy = format!("the two do not serve together ({error}): take the key that the certificate was made for");
            report.refuse(&span, format!("{TLS}.key_file"), "the key of the certificate", remedy);
            None
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(all) }
}

fn versions(report: &mut Report<'_>, section: &Mapping<'_, '_>) -> Option<&'static [&'static SupportedProtocolVersion]> {
    static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match section.text(report, "min_version") {
        None | Some(("TLS12", _)) => Some(&ALL),
        Some(("TLS13", _)) => Some(&ALL[..1]),
        Some((_, span)) => {
            report.refuse(&span, format!("{TLS}.min_version"), "TLS12 or TLS13", "older ones are broken, and not served");
            None
        }
    }
}

/// Who verifies clients: `Some(None)` is nobody, none is a fault.
#[expect(clippy::option_option, reason = "a fault is none of the three")]
fn clients(
    report: &mut Report<'_>,
    section: &Mapping<'_, '_>,
    files: &mut Files<'_>,
    provider: &Arc<CryptoProvider>,
) -> Option<Option<Arc<dyn ClientCertVerifier>>> {
    let (kind, at) = section.text(report, "client_auth_type").unwrap_or(("NoClientCert", section.span.clone()));
    let expected = "NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert";
    let auth = match kind {
        "NoClientCert" => ClientAuth::None,
        "VerifyClientCertIfGiven" => ClientAuth::IfGiven,
        "RequireAndVerifyClientCert" => ClientAuth::Required,
        unverified => {
            let remedy = match unverified {
                "RequestClientCert" | "RequireAnyClientCert" => {
                    "a certificate that nobody verifies protects nothing: RequireAndVerifyClientCert does"
                }
                _ => "choose one of these",
            };
            report.refuse(&at, format!("{TLS}.client_auth_type"), expected, remedy);
            return None;
        }
    };
    let authority = section.text(report, "client_ca_file");
    match (auth, authority) {
        (ClientAuth::None, None) => Some(None),
        (ClientAuth::None, Some((_, span))) => {
            let remedy = "add `client_auth_type: RequireAndVerifyClientCert`, or remove this: it would protect nothing";
            report.refuse(&span, format!("{TLS}.client_ca_file"), "a client_auth_type that verifies", remedy);
            None
        }
        (_, None) => {
            let remedy = "name the certificate that those of the clients are signed with, as in `client_ca_file: clients.pem`";
            report.note(at.start, format!("{TLS}.client_ca_file"), "nothing", "a PEM file", remedy);
            None
        }
        (auth, Some((name, span))) => {
            let authorities = files.load(report, (name, "client_ca_file", &span), "a certificate", certificates)?;
            let mut roots = RootCertStore::empty();
            let added = authorities.into_iter().try_for_each(|authority| roots.add(authority));
            let verifier = added.map_err(|error| error.to_string()).and_then(|()| {
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
                let builder = if auth == ClientAuth::IfGiven { builder.allow_unauthenticated() } else { builder };
                builder.build().map_err(|error| error.to_string())
            });
            match verifier {
                Ok(verifier) => Some(Some(verifier)),
                Err(error) => {
                    report.refuse(&span, format!("{TLS}.client_ca_file"), "certificates of an authority", error);
                    None
                }
            }
        }
    }
}
