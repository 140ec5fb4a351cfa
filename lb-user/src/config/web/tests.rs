//! Web configurations, right and wrong, with certificates made for the occasion.
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

use super::*;

/// Of `secret`, at the least cost.
const HASH: &str = "$2y$08$1SGc2o92PPQrdZQVJsXSCOuz5ZYzcXkQrdcHTaFtwnUvC6oyPcIcO";

/// A directory with two certificates and their keys: `a.pem`, `a.key`, `b.pem`, `b.key`, and `empty.pem`.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(directory.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(directory.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    fs::write(directory.path().join("empty.pem"), "").unwrap();
    directory
}

fn parse(text: &str) -> Result<WebConfig, String> {
    let directory = directory();
    let place = format!("{}/", directory.path().display());
    WebConfig::parse("web.yml", text, directory.path()).map_err(|faults| faults.to_string().replace(&place, ""))
}

#[test]
fn all_that_is_known_is_read() {
    let text = format!(
        "tls_server_config:\n  cert_file: a.pem\n  key_file: 'a.key'\n  min_version: TLS13\n  client_auth_type: RequireAndVerifyClientCert\n  \
         client_ca_file: b.pem\nbasic_auth_users:\n  alice: {HASH}\n  bob: '{HASH}'\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.users.keys().collect::<Vec<_>>(), ["alice", "bob"]);
    assert!(config.tls.is_some());
    assert_eq!(config.files.len(), 3);
}

#[test]
fn nothing_is_nothing() {
    for text in ["", "# only a comment\n", "tls_server_config:\n", "{}"] {
        let config = parse(text).unwrap();
        assert!(config.tls.is_none() && config.users.is_empty(), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let rows: [(&str, &[&str]); 12] = [
        (
            "tls_server_config:\n  cert_file: a.pem\n",
            &["web.yml:2:3: tls_server_config.key_file: found nothing", "add a line such as `key_file:"],
        ),
        (
            "tls_server_config:\n  cert_file: a.pem\n  key_file: b.key\n",
            &["web.yml:3:13: tls_server_config.key_file: found b.key", "do not serve together"],
        ),
        (
            "tls_server_config:\n  cert_file: no.pem\n  key_file: a.key\n",
            &["web.yml:2:14: tls_server_config.cert_file: found no.pem", "cannot read no.pem: No such file"],
        ),
        ("tls_server_config:\n  cert_file: empty.pem\n  key_file: a.key\n", &["2:14: tls_server_config.cert_file", "empty.pem holds none"]),
        (
            "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  client_auth_type: RequireAnyClientCert\n",
            &["4:21: tls_server_config.client_auth_type: found RequireAnyClientCert", "nobody verifies"],
        ),
        (
            "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  client_ca_file: b.pem\n",
            &["4:19: tls_server_config.client_ca_file", "add `client_auth_type"],
        ),
        (
            "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  client_auth_type: RequireAndVerifyClientCert\n",
            &["4:21: tls_server_config.client_ca_file: found nothing"],
        ),
        (
            "tls_server_config:\n  cert_file: a.pem\n  key_file: a.key\n  min_version: TLS10\n",
            &["4:16: tls_server_config.min_version: found TLS10", "older ones are broken"],
        ),
        (
            "tls_server_config:\n  cert_fil: a.pem\n  key_file: a.key\n",
            &["2:3: tls_server_config.cert_fil: found cert_fil", "did you mean `cert_file`?"],
        ),
        ("http_server_config:\n  http2: true\n", &["1:1: http_server_config", "expected one of tls_server_config, basic_auth_users"]),
        (
            "basic_auth_users:\n  alice: secret\n",
            &["2:10: basic_auth_users.alice: found something else, expected a bcrypt hash", "htpasswd"],
        ),
        ("basic_auth_users:\n  alice: a\n  alice: b\n", &["web.yml:3:", "expected YAML"]),
    ];
    for (text, says) in rows {
        let faults = parse(text).expect_err(text);
        for word in says {
            assert!(faults.contains(word), "{text}\nsays\n{faults}\nand not\n{word}");
        }
    }
}

#[test]
fn no_fault_shows_a_hash() {
    let dear = HASH.replace("$08$", "$31$");
    for text in [
        format!("basic_auth_users:\n  alice: {}\n", HASH.replace("$08$", "$04$")),
        format!("basic_auth_users:\n  alice: {dear}\n"),
        format!("basic_auth_users:\n  alice: {HASH}x\n"),
        format!("basic_auth_users:\n  'a:b': {HASH}\n"),
        format!("basic_auth_users:\n  alice: {HASH}\n bob: {HASH}\n"),
    ] {
        let faults = parse(&text).expect_err(&text);
        assert!(!faults.contains("2y$"), "{text}\nsays\n{faults}");
    }
}
