//! Rules without a network.
use std::path::Path;

use super::*;

const COST: u32 = 8;

fn rules(users: &[(&str, &str)]) -> Rules {
    let hash = |password: &str| bcrypt::hash(password, COST).unwrap();
    let users = users.iter().map(|(name, password)| ((*name).to_owned(), hash(password))).collect();
    Rules::new(WebConfig { tls: None, users, files: Vec::new() })
}

fn headers(credentials: &str) -> HeaderMap {
    let value = format!("Basic {}", BASE64_STANDARD.encode(credentials));
    HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::try_from(value).unwrap())])
}

#[tokio::test]
async fn only_the_right_password_of_a_user_is_let_through() {
    let rules = rules(&[("alice", "secret"), ("bob", "other:with colon")]);
    for _ in 0..2 {
        for right in ["alice:secret", "bob:other:with colon"] {
            assert!(rules.allow(&headers(right)).await, "{right}");
        }
        for wrong in ["alice:other", "alice:", "alice", "bob:secret", "carol:secret", ":secret", "", "alices:ecret"] {
            assert!(!rules.allow(&headers(wrong)).await, "{wrong}");
        }
    }
    for value in ["Bearer x", "Basic", "Basic ???", "basic"] {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
        assert!(!rules.allow(&headers).await, "{value}");
    }
    assert!(!rules.allow(&HeaderMap::new()).await);
}

/// That a wrong one is not remembered is above: it is refused the second time as well.
#[tokio::test]
async fn a_right_password_is_hashed_once() {
    let rules = rules(&[("alice", "secret")]);
    assert!(rules.allow(&headers("alice:secret")).await);
    // Nobody gets a turn any more: what is let through was not hashed.
    rules.turn.close();
    assert!(rules.allow(&headers("alice:secret")).await);
    assert!(!rules.allow(&headers("alice:wrong")).await);
}

#[test]
fn a_changed_file_is_read_again_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.yml");
    let write = |users: &[&str]| {
        let hash = bcrypt::hash("secret", COST).unwrap();
        let lines: Vec<String> = users.iter().map(|user| format!("  {user}: {hash}\n")).collect();
        fs::write(&path, format!("basic_auth_users:\n{}", lines.concat())).unwrap();
    };
    write(&["alice"]);
    let access = Access::load(path.clone()).unwrap();
    let names = |access: &Access| {
        access.state.lock().unwrap().looked -= LOOK;
        access.rules().users.keys().cloned().collect::<Vec<_>>()
    };
    let before = access.rules();
    assert_eq!(names(&access), ["alice"]);
    // What was verified is not forgotten as long as nothing changes.
    assert!(Arc::ptr_eq(&before, &access.rules()));
    write(&["alice", "bob"]);
    assert_eq!(names(&access), ["alice", "bob"]);
    fs::write(&path, "basic_auth_users: [").unwrap();
    assert_eq!(names(&access), ["alice", "bob"]);
    fs::remove_file(&path).unwrap();
    assert_eq!(names(&access), ["alice", "bob"]);
    write(&["carol"]);
    assert_eq!(names(&access), ["carol"]);
    assert!(Access::load(Path::new("/nonesuch/web.yml").to_owned()).is_err());
}
