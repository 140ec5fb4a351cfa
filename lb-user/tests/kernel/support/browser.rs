//! Chromium without a window, driven by its own protocol over two pipes (`--remote-debugging-pipe`): messages of JSON, each ended by a
//! zero byte.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::eventually;

/// How long a command may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: File,
    messages: Receiver<Value>,
    session: Option<String>,
    number: u64,
    /// What went wrong in the page: errors of the console, exceptions, violations of its policy, requests that failed.
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it with an empty page.
    pub fn start() -> Self {
        let profile = tempfile::Builder::new().prefix("weirt-browser-").tempdir().expect("make a temporary directory");
        let pipe = |name: &str| {
            let path = profile.path().join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("make a pipe");
            path
        };
        let (to, from) = (pipe("to"), pipe("from"));
        // The browser reads its descriptor 3 and writes its descriptor 4; a pipe opened for both ways waits for nobody.
        let both = |path| OpenOptions::new().read(true).write(true).open(path).expect("open a pipe");
        let (commands, answers) = (both(&to), both(&from));
        let child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<to 4>from"#, "chromium", "--headless", "--remote-debugging-pipe"])
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-component-update"])
            .args(["--disable-background-networking", "--disable-sync", "--hide-scrollbars", "--user-data-dir=profile", "about:blank"])
            .current_dir(profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start chromium");
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap_or_else(|error| json!({ "broken": error.to_string() }));
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self { child, commands, messages, session: None, number: 0, complaints: Vec::new(), _profile: profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let session = browser.ask("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        assert!(browser.session.is_some(), "the browser gave no session: {session}");
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Opens an address.
    pub fn open(&mut self, address: &str) {
        let opened = self.ask("Page.navigate", json!({ "url": address }));
        assert!(opened.get("errorText").is_none(), "{address}: {opened}");
        self.wait_for(PATIENCE, &format!("location.href === {address:?} && document.readyState !== 'loading'"));
    }

    /// The size of the window in pixels, and how the user likes pages.
    pub fn looks(&mut self, width: u32, height: u32, scheme: &str, motion: &str) {
        let phone = width < 600;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// The same as a text.
    pub fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    }

    /// Waits until an expression is true of the page.
    #[track_caller]
    pub fn wait_for(&mut self, deadline: Duration, expression: &str) {
        eventually(deadline, || {
            if self.value(expression) == Value::Bool(true) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
            Err(format!("{expression}; the page is:\n{}", self.text("document.body ? document.body.innerText : 'nothing'")))
        });
    }

    /// Presses a key, as on a keyboard.
    pub fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            self.ask("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code }));
        }
    }

    /// The roles and names of what assistive technology is told of, in the page's order.
    pub fn accessible(&mut self) -> Vec<(String, String)> {
        let tree = self.ask("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let text = |node: &Value, key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
        nodes.iter().filter(|node| node["ignored"] != true).map(|node| (text(node, "role"), text(node, "name"))).collect()
    }

    /// A picture of the whole page as PNG, in base64.
    pub fn picture(&mut self) -> String {
        let size = self.ask("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let shot = self.ask("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true, "clip": clip }));
        shot["data"].as_str().expect("a picture").to_owned()
    }

    /// What went wrong in the page so far.
    pub fn complaints(&mut self) -> &[String] {
        // What was told before the answer to this has arrived with it.
        self.value("1");
        &self.complaints
    }

    #[track_caller]
    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            command["sessionId"] = session.clone().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("tell the browser");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) if message["id"] == self.number => {
                    assert!(message.get("error").is_none(), "{method}: {}", message["error"]);
                    return message["result"].clone();
                }
                Ok(event) => self.note(&event),
                Err(RecvTimeoutError::Timeout) => panic!("{method}: no answer within {PATIENCE:?}; chromium: {:?}", self.child.try_wait()),
                Err(RecvTimeoutError::Disconnected) => panic!("{method}: the browser has closed its pipe"),
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => Some(&parameters["exceptionDetails"]),
            Some("Runtime.consoleAPICalled") if ["error", "warning", "assert"].map(Value::from).contains(&parameters["type"]) => {
                Some(parameters)
            }
            Some("Log.entryAdded") if ["error", "warning"].map(Value::from).contains(&parameters["entry"]["level"]) => {
                Some(&parameters["entry"])
            }
            Some("Audits.issueAdded") => Some(&parameters["issue"]),
            Some("Network.requestWillBeSent") if !is_local(&parameters["request"]["url"]) => Some(&parameters["request"]),
            _ => None,
        };
        self.complaints.extend(complaint.map(Value::to_string));
    }
}

/// Whether a request stays on this host: the page takes nothing from elsewhere.
fn is_local(url: &Value) -> bool {
    let url = url.as_str().unwrap_or_default();
    ["http://127.0.0.1:", "https://127.0.0.1:", "data:", "about:"].iter().any(|start| url.starts_with(start))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends its own children with itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
