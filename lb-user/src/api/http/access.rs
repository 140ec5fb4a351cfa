//! Who may read: TLS and passwords, by the web configuration ([`WebConfig`]). Its files are read again when they change, so that a
//! certificate is renewed without a restart; what is wrong with them then is logged, and what held before goes on.
//!
//! A password is hashed once: what was right is remembered by a keyed digest, so that a scrape costs no bcrypt. Wrong ones are hashed
//! one at a time, and so are those of users that do not exist.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Extension,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{hmac, rand::SystemRandom};
use rustls::ServerConfig;
use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_rustls::TlsAcceptor;

use super::Connection;
use crate::config::{ConfigError, WebConfig};

/// How often it is looked whether a file has changed, at the most.
const LOOK: Duration = Duration::from_secs(1);
/// How many right passwords are remembered; each user has one, as a rule.
const REMEMBERED: usize = 100;

/// The web configuration as it is now.
#[derive(Debug)]
pub struct Access {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Arc<Rules>,
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    looked: Instant,
}

/// What changes with a file.
type Stamp = (Option<SystemTime>, u64, u64);

/// What holds for a connection.
#[derive(Debug)]
pub(super) struct Rules {
    /// None: plain HTTP.
    tls: Option<Arc<ServerConfig>>,
    users: BTreeMap<String, String>,
    verified: Mutex<HashSet<[u8; 32]>>,
    /// Of the digests; none if the system has no random bytes: then nothing is remembered.
    key: Option<hmac::Key>,
    turn: Semaphore,
}

impl Access {
    /// Reads the file for the first time.
    pub fn load(path: PathBuf) -> Result<Self, ConfigError> {
        let config = WebConfig::load(&path)?;
        if config.tls.is_none() && !config.users.is_empty() {
            tracing::warn!("{}: passwords without TLS can be read by whoever carries them", path.display());
        }
        let state = State { stamps: stamps(&config.files), rules: Arc::new(Rules::new(config)), looked: Instant::now() };
        Ok(Self { path, state: Mutex::new(state) })
    }

    /// What holds for a connection that comes now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let files: Vec<PathBuf> = state.stamps.iter().map(|(path, _)| path.clone()).collect();
            let now = stamps(&files);
            if now != state.stamps {
                state.stamps = now;
                match WebConfig::load(&self.path) {
                    Ok(config) => {
                        tracing::info!("{} was read again", self.path.display());
                        state.stamps = stamps(&config.files);
                        state.rules = Arc::new(Rules::new(config));
                    }
                    Err(error) => tracing::error!("the web configuration stays as it was: {:#}", anyhow::Error::from(error)),
                }
            }
        }
        Arc::clone(&state.rules)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<(PathBuf, Option<Stamp>)> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &PathBuf| fs::metadata(path).ok().map(|file| (file.modified().ok(), file.len(), file.ino()));
    files.iter().map(|path| (path.clone(), stamp(path))).collect()
}

impl Rules {
    fn new(config: WebConfig) -> Self {
        Self {
            tls: config.tls,
            users: config.users,
            verified: Mutex::new(HashSet::new()),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok(),
            turn: Semaphore::new(1),
        }
    }

    /// What makes TLS of a connection; none: it is plain HTTP.
    pub fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone().map(TlsAcceptor::from)
    }

    /// Whether the request is of a user that may read.
    async fn allow(&self, headers: &HeaderMap) -> bool {
        let Some((user, password)) = credentials(headers) else { return false };
        let digest = self.digest(&user, &password);
        if digest.as_ref().is_some_and(|digest| self.remembered(digest)) {
            return true;
        }
        let Ok(_turn) = self.turn.acquire().await else { return false };
        let known = self.users.get(&user);
        // Whoever has no such user is told so no sooner.
        let Some(hash) = known.or_else(|| self.users.values().next()).cloned() else { return false };
        let right = spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await.unwrap_or(false);
        let right = right && known.is_some();
        if let Some(digest) = digest.filter(|_| right) {
            let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
            if verified.len() >= REMEMBERED {
                verified.clear();
            }
            verified.insert(digest);
        }
        right
    }

    /// The key is secret: how long a look-up takes says nothing of the password.
    fn remembered(&self, digest: &[u8; 32]) -> bool {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// The user's length tells where the password begins.
    fn digest(&self, user: &str, password: &[u8]) -> Option<[u8; 32]> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(password);
        context.sign().as_ref().try_into().ok()
    }
}

/// `Authorization: Basic` (RFC 7617).
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let bytes = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(encoded.trim()).ok())??;
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    Some((String::from_utf8(bytes[..colon].to_vec()).ok()?, bytes[colon + 1..].to_vec()))
}

/// Lets through who may read.
pub(super) async fn authorize(Extension(connection): Extension<Arc<Connection>>, request: Request, next: Next) -> Response {
    let rules = connection.rules.as_ref().filter(|rules| !rules.users.is_empty());
    if let Some(rules) = rules
        && !rules.allow(request.headers()).await
    {
        let ask = (header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Weir\", charset=\"UTF-8\""));
        return (StatusCode::UNAUTHORIZED, [ask], "a name and a password are needed\n").into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests;
