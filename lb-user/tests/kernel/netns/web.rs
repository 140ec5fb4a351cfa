//! Who may read the metrics and the page: TLS, client certificates and passwords, as curl and promtool see them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::daemon::Weir;
use crate::support::netns::{Pair, tool};
use crate::support::servers::{WorkerPlan, Workers};
use crate::support::trial;

pub fn tests() -> Vec<Trial> {
    vec![
        trial("web::only_those_who_may_read", only_those_who_may_read),
        trial("web::a_bad_web_configuration_is_refused", a_bad_web_configuration_is_refused),
    ]
}

/// A directory with an authority (`ca.pem`), a server's and a client's certificate of its (`server.*`, `client.*`) and one of a stranger.
fn certificates() -> TempDir {
    let directory = tempfile::Builder::new().prefix("weirt-web-").tempdir().expect("make a temporary directory");
    let write = |name: &str, text: String| fs::write(directory.path().join(name), text).expect("write a certificate");
    let named = |name: &str| {
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters
    };
    let mut parameters = named("authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority");
    write("ca.pem", authority.pem());
    for name in ["server", "client", "stranger"] {
        let parameters = named(name);
        let key = KeyPair::generate().expect("a key");
        let certificate = if name == "stranger" { parameters.self_signed(&key) } else { parameters.signed_by(&key, &authority) };
        write(&format!("{name}.pem"), certificate.expect("a certificate").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    directory
}

/// `curl`'s exit code, the status it saw (0 without an answer), and all that came.
fn curl(directory: &Path, arguments: &[&str]) -> (i32, u16, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "10", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("run curl");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = out.rsplit('\n').next().and_then(|line| line.parse().ok()).unwrap_or(0);
    (output.status.code().unwrap_or(-1), status, out + &String::from_utf8_lossy(&output.stderr))
}

fn only_those_who_may_read() {
    const TLS: [&str; 2] = ["--cacert", "ca.pem"];
    const CLIENT: [&str; 6] = ["--cacert", "ca.pem", "--cert", "client.pem", "--key", "client.key"];
    const USER: [&str; 2] = ["--user", "alice:secret"];
    let pair = Pair::new();
    let web = SocketAddr::new(pair.server_v4[0], 8080);
    let _workers = Workers::start(&pair.server, &WorkerPlan::tcp(web), 2);
    let directory = certificates();
    let hash = bcrypt::hash("secret", 8).expect("a hash");
    let text = format!(
        "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_auth_type: RequireAndVerifyClientCert\n  \
         client_ca_file: ca.pem\nbasic_auth_users:\n  alice: '{hash}'\n"
    );
    let file = directory.path().join("web.yml");
    fs::write(&file, &text).expect("write the web configuration");
    let file_name = file.display().to_string();
    // It is the exporters' format: Prometheus' own checker takes it.
    tool("promtool", &["check", "web-config", &file_name]);

    let mut weir = Weir::prepare(&pair.server, Pair::SERVER_DEVICE, None, &["--discover", "tcp", "--web-config", &file_name]);
    let address = weir.http_address();
    let get = |scheme: &str, path: &str, arguments: &[&[&str]]| {
        let url = format!("{scheme}://{address}{path}");
        curl(directory.path(), &[&arguments.concat(), &[url.as_str()][..]].concat())
    };
    weir.restart_until(|_| match get("https", "/readyz", &[&CLIENT, &USER]) {
        (0, 200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let (_, status, body) = get("https", "/metrics", &[&CLIENT, &USER]);
    assert!(status == 200 && body.contains("weir_build_info{"), "{body}");
    let (_, status, page) = get("https", "/", &[&CLIENT, &USER]);
    assert!(
        status == 200 && page.contains("content-security-policy: default-src 'none'") && page.contains("<title>Weir</title>"),
        "{page}"
    );
    let (code, status, events) = get("https", "/api/v1/events", &[&CLIENT, &USER, &["--no-buffer", "--max-time", "3"]]);
    assert!(
        code == 28 && status == 200 && events.contains("event: opening") && events.contains("event: moment"),
        "{code} {status} {events}"
    );

    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/status", "/api/v1/events", "/nonesuch"] {
        for credentials in [&[][..], &["--user", "alice:wrong"], &["--user", "bob:secret"]] {
            let (_, status, body) = get("https", path, &[&CLIENT, credentials]);
            assert!(status == 401 && body.contains("www-authenticate: Basic realm=\"Weir\"") && !body.contains("weir_"), "{path}: {body}");
        }
    }
    // Without the certificate, or with that of a stranger, there is not even an answer; nor without TLS.
    for arguments in [&TLS[..], &["--cacert", "ca.pem", "--cert", "stranger.pem", "--key", "stranger.key"]] {
        let (code, status, body) = get("https", "/metrics", &[arguments, &USER]);
        assert!(code != 0 && status == 0, "{code} {status} {body}");
    }
    let (code, status, body) = get("http", "/metrics", &[&USER]);
    assert!(code != 0 && status == 0, "{code} {status} {body}");
    // No certificate of the server's own: curl does not trust it.
    assert_eq!(get("https", "/metrics", &[&["--cert", "client.pem", "--key", "client.key"], &USER]).0, 60);

    // Without a restart: certificates of clients are asked for no more.
    fs::write(&file, text.replace("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n", "")).expect("write");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (_, status, body) = get("https", "/healthz", &[&TLS, &USER]);
    assert_eq!(status, 200, "{body}\n{}", weir.log());
    assert!(weir.log().contains("web.yml was read again"), "{}", weir.log());
}

fn a_bad_web_configuration_is_refused() {
    let pair = Pair::new();
    let directory = certificates();
    let file = directory.path().join("web.yml");
    fs::write(&file, "tls_server_config:\n  cert_file: server.pem\n  key_file: client.key\n").expect("write");
    let configuration = format!("[daemon]\nweb_config = \"{}\"\n[discovery]\ntcp = true\n", file.display());
    let weir = Weir::prepare(&pair.server, Pair::SERVER_DEVICE, Some(&configuration), &[]);
    let (code, log) = weir.run_to_end();
    assert_eq!(code, Some(3), "{log}");
    for word in ["web.yml:3:13: tls_server_config.key_file: found client.key", "remedy: the two do not serve together"] {
        assert!(log.contains(word), "{log}");
    }
    // And so says the check, which needs no daemon.
    let checked = weir.cli_output(&["config", "check", &weir.configuration_path().display().to_string()]);
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
}
