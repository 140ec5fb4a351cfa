//! The page in a real browser, before, in and after a flood.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use libtest_mimic::Trial;

use super::defence::{Aim, floods};
use crate::support::browser::Browser;
use crate::support::daemon::Weir;
use crate::support::flood::FloodKind;
use crate::support::load::{Plan, Steady};
use crate::support::netns::Pair;
use crate::support::servers::{Nginx, WorkerPlan, Workers};
use crate::support::trial;
use crate::support::wait::eventually;

pub fn tests() -> Vec<Trial> {
    vec![trial("page::shows_a_flood_in_a_browser", shows_a_flood_in_a_browser)]
}

/// For a picture; the flood itself goes on for longer.
const FLOOD_SECONDS: u64 = 40;
const SOON: Duration = Duration::from_secs(20);

/// How long each part goes on beside what it has to: for the pictures of docs/, which show some minutes. A flood has its end.
fn linger(most: u64) {
    let seconds: Option<u64> = std::env::var("WEIR_PAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    std::thread::sleep(Duration::from_secs(seconds.unwrap_or(0).min(most)));
}

/// Keeps a picture of the page below target/tmp.
fn keep(browser: &mut Browser, name: &str) {
    let picture = base64::prelude::BASE64_STANDARD.decode(browser.picture()).expect("base64");
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{name}: {} bytes", picture.len());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
    std::fs::write(&path, picture).expect("keep the picture");
    println!("{}", path.display());
}

fn shows_a_flood_in_a_browser() {
    let pair = Pair::new();
    let (web, api) = (SocketAddr::new(pair.server_v4[0], 8080), SocketAddr::new(pair.server_v6[0], 9090));
    let _nginx = Nginx::start(&pair.server, &[web], 4);
    let _stuck = Workers::start(&pair.server, &WorkerPlan::tcp(api).backlog(64).without_accepting(), 2);
    let configuration = format!(
        "[discovery]\ntcp = true\n{}\n[[service]]\nname = \"web\"\naddress = \"{}\"\nport = 8080\nprotocol = \"tcp\"\n[[service]]\nname = \"api\"\naddress = \"{}\"\nport = 9090\nprotocol = \"tcp\"\nsyn_defence = \"off\"\n",
        floods::defence(""),
        web.ip(),
        api.ip()
    );
    let weir = Weir::start(&pair.server, Pair::SERVER_DEVICE, Some(&configuration), &[]);
    let clients = Steady::at_rate(&pair.client, &Plan::new(web, &pair.client_v4).http("/", None), 300);
    let mut browser = Browser::start();
    browser.looks(1280, 900, "light", "no-preference");
    browser.open(&format!("http://{}/", weir.http_address()));

    // Calm: it is live, the rates are there, and all is well.
    browser.wait_for(SOON, "document.getElementById('connection').dataset.state === 'live'");
    browser.wait_for(SOON, "document.getElementById('headline').textContent === 'All is calm'");
    browser.wait_for(SOON, "/^[1-9].* packets per second/.test(document.getElementById('way-text').textContent)");
    let says = browser.text("document.body.innerText");
    assert!(["web", "api", "Delivered", "Dropped", "Not ours"].iter().all(|word| says.contains(word)), "{says}");
    linger(u64::MAX);
    keep(&mut browser, "calm");
    // The rates move: another text each second.
    let first = browser.text("document.getElementById('way-text').textContent");
    browser.wait_for(SOON, &format!("document.getElementById('way-text').textContent !== {first:?}"));

    // Workers that accept nothing, and clients who wait for them: one of the two has at least half of them, and it is said which. Whom
    // there is no room for at the other has no connection.
    let connect = || (0..104).filter_map(|_| TcpStream::connect_timeout(&api, Duration::from_millis(500)).ok()).collect();
    let waiting: Vec<TcpStream> = pair.client.run(connect);
    browser.wait_for(SOON, "document.getElementById('headline').textContent === 'Something needs a look'");
    browser.wait_for(SOON, r"/api, worker \d.*: accept queue \d\d of 64/.test(document.getElementById('troubles').textContent)");
    linger(u64::MAX);
    keep(&mut browser, "trouble");
    drop(waiting);

    // A flood.
    let aim = Aim { from: (&pair.client, Pair::CLIENT_DEVICE), to: (&pair.server, Pair::SERVER_DEVICE), target: web };
    let flood = floods::by_generator(&aim);
    let strays = floods::generated(&aim, &floods::plan(&aim, FloodKind::Ack).rate(4_000));
    browser.wait_for(SOON, "document.getElementById('headline').textContent === 'SYN flood on web'");
    browser.wait_for(SOON, "document.title === 'Flood · Weir'");
    // What is dropped has a reason, in words.
    browser.wait_for(SOON, "/cookie_refused.+without a valid cookie.*Weir/s.test(document.getElementById('drops').textContent)");
    linger(FLOOD_SECONDS);
    keep(&mut browser, "flood");

    // On a phone in the dark, without motion: nothing is wider than the screen, and the dark is dark.
    browser.looks(390, 844, "dark", "reduce");
    browser.wait_for(SOON, "document.getElementById('way').clientWidth < 390");
    assert_eq!(browser.text("document.documentElement.scrollWidth"), "390");
    assert_eq!(browser.text("getComputedStyle(document.body).backgroundColor"), "rgb(16, 21, 20)");
    assert_eq!(browser.text("getComputedStyle(document.querySelector('.drift')).animationName"), "none");
    keep(&mut browser, "flood-phone");

    // By keyboard alone: one service.
    browser.looks(1280, 900, "dark", "no-preference");
    browser.value("document.getElementById('choice').focus()");
    browser.press("ArrowDown", 40);
    browser.press("ArrowDown", 40);
    browser.wait_for(SOON, "document.getElementById('list-title').textContent.startsWith('Workers of ')");
    keep(&mut browser, "service-dark");

    let told = browser.accessible();
    let has = |role: &str, name: &str| told.iter().any(|(given, said)| given == role && said.contains(name));
    for (role, name) in
        [("banner", ""), ("main", ""), ("contentinfo", ""), ("heading", "SYN flood"), ("image", "The way of packets"), ("status", "")]
    {
        assert!(has(role, name), "assistive technology is not told of {role} {name}: {told:?}");
    }
    drop((flood, strays));

    clients.stop();
    assert_eq!(browser.complaints(), [] as [String; 0]);
    // What would be complained of is: a script that somebody brings in does not run.
    browser.value("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:x\" onerror=\"window.foreign = 1\">')");
    let told = eventually(SOON, || match browser.complaints() {
        [] => Err("no violation is told of".to_owned()),
        told => Ok(told.concat()),
    });
    assert!(told.contains("script-src"), "{told}");
    assert_eq!(browser.text("typeof window.foreign"), "undefined");
}
