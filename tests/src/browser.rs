//! Chromium without a window, driven by its debugging protocol through two pipes: pages are read
//! and used as by a person, with clicks and keys.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::LIMIT;

/// The width and the height of the page, in pixels.
const SIZE: (u32, u32) = (1280, 800);

/// A browser with one page. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    events: VecDeque<Value>,
    session: Option<String>,
    last_id: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts Chromium with an empty profile and an empty page.
    pub fn start() -> Result<Self> {
        let profile = tempfile::tempdir()?;
        // Chromium reads commands from descriptor 3, and writes to 4.
        let script = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", script, "sh", "chromium", "--remote-debugging-pipe"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start chromium")?;
        let commands = child.stdin.take().context("chromium has no input")?;
        let output = child.stdout.take().context("chromium has no output")?;
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            let messages = BufReader::new(output).split(0).map_while(Result::ok);
            for message in messages.filter_map(|bytes| serde_json::from_slice(&bytes).ok()) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            events: VecDeque::new(),
            session: None,
            last_id: 0,
            _profile: profile,
        };
        browser.attach()?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<()> {
        let targets = self.call("Target.getTargets", &json!({}))?;
        let targets = targets["targetInfos"].as_array().context("no targets")?;
        let page = targets
            .iter()
            .find(|target| target["type"] == "page")
            .context("no page")?;
        let id = page["targetId"].clone();
        let attached = self.call("Target.attachToTarget", &json!({"targetId": id, "flatten": true}))?;
        self.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        let (width, height) = SIZE;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        Ok(())
    }

    /// Calls a method of the protocol, and returns its result.
    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.commands.write_all(&bytes)?;
        self.commands.flush()?;
        loop {
            let answer = self
                .messages
                .recv_timeout(LIMIT)
                .with_context(|| format!("chromium does not answer {method}"))?;
            if answer["id"] != self.last_id {
                self.events.push_back(answer);
                continue;
            }
            if let Some(error) = answer.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(answer["result"].clone());
        }
    }

    /// Opens a file, with a fragment that may be empty, and waits until it is drawn.
    pub fn open(&mut self, file: &Path, fragment: &str) -> Result<()> {
        // Another document first: a fragment alone would not load the page.
        self.navigate("about:blank")?;
        self.navigate(&format!("file://{}#{fragment}", file.display()))
    }

    /// Loads the page again, with the fragment that it has by now.
    pub fn reload(&mut self) -> Result<()> {
        let url = self.evaluate("location.href")?;
        let url = url.as_str().context("no address")?.to_owned();
        self.navigate("about:blank")?;
        self.navigate(&url)
    }

    fn navigate(&mut self, url: &str) -> Result<()> {
        self.events
            .retain(|event| event["method"] != "Page.loadEventFired");
        let navigated = self.call("Page.navigate", &json!({"url": url}))?;
        ensure!(
            navigated.get("errorText").is_none(),
            "failed to open {url}: {navigated}"
        );
        loop {
            let loaded = self
                .events
                .iter()
                .any(|event| event["method"] == "Page.loadEventFired");
            if loaded {
                break;
            }
            let event = self
                .messages
                .recv_timeout(LIMIT)
                .context("the page does not load")?;
            self.events.push_back(event);
        }
        self.settle()
    }

    /// Waits until what was done is drawn.
    pub fn settle(&mut self) -> Result<()> {
        let frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 20))))";
        self.evaluate(frames).map(drop)
    }

    /// Returns the value of an expression.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", &parameters)?;
        if let Some(exception) = result.get("exceptionDetails") {
            bail!("{expression}: {exception}");
        }
        Ok(result["result"]["value"].clone())
    }

    /// Returns the text of the first element that a selector finds.
    pub fn text(&mut self, selector: &str) -> Result<String> {
        let text = self.evaluate(&format!(
            "document.querySelector({})?.textContent",
            json!(selector)
        ))?;
        let text = text.as_str().with_context(|| format!("there is no {selector}"))?;
        Ok(text.to_owned())
    }

    /// Returns the fragment of the address.
    pub fn fragment(&mut self) -> Result<String> {
        let hash = self.evaluate("location.hash")?;
        Ok(hash
            .as_str()
            .unwrap_or_default()
            .trim_start_matches('#')
            .to_owned())
    }

    /// Clicks a point of the page, in pixels from the upper left, so many times.
    pub fn click(&mut self, x: f64, y: f64, count: u32) -> Result<()> {
        self.mouse(&json!({"type": "mouseMoved", "x": x, "y": y}))?;
        for number in 1..=count {
            for kind in ["mousePressed", "mouseReleased"] {
                let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": number});
                self.mouse(&event)?;
            }
        }
        self.settle()
    }

    /// Clicks the middle of the first element that a selector finds.
    pub fn click_on(&mut self, selector: &str, count: u32) -> Result<()> {
        let middle = format!(
            "(() => {{ const it = document.querySelector({}); it.scrollIntoView({{ block: 'nearest' }}); \
             const room = it.getBoundingClientRect(); \
             return [room.x + room.width / 2, room.y + room.height / 2]; }})()",
            json!(selector)
        );
        let at = self.evaluate(&middle)?;
        let [x, y] = [0, 1].map(|index| at[index].as_f64());
        self.click(x.context("no place")?, y.context("no place")?, count)
    }

    /// Turns the wheel over a point; away from the user where `by` is negative.
    pub fn wheel(&mut self, x: f64, y: f64, by: f64) -> Result<()> {
        self.mouse(&json!({"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": by}))?;
        self.settle()
    }

    fn mouse(&mut self, event: &Value) -> Result<()> {
        self.call("Input.dispatchMouseEvent", event).map(drop)
    }

    /// Presses a key: a character, or a name such as `Enter`.
    pub fn key(&mut self, key: &str) -> Result<()> {
        let mut event = json!({"type": "keyDown", "key": key});
        if key.chars().count() == 1 {
            event["text"] = key.into();
        }
        self.call("Input.dispatchKeyEvent", &event)?;
        self.call("Input.dispatchKeyEvent", &json!({"type": "keyUp", "key": key}))?;
        self.settle()
    }

    /// Writes text where the focus is.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({"text": text}))?;
        self.settle()
    }

    /// Fails if the page threw, logged or requested anything.
    pub fn has_no_problems(&mut self) -> Result<()> {
        // Whatever is on its way comes before the answer.
        self.settle()?;
        for event in &self.events {
            let parameters = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" => bail!("an exception: {}", parameters["exceptionDetails"]),
                "Runtime.consoleAPICalled" => bail!("a message: {}", parameters["args"]),
                "Log.entryAdded" => bail!("a message: {}", parameters["entry"]),
                "Network.requestWillBeSent" => {
                    let url = parameters["request"]["url"].as_str().unwrap_or_default();
                    let is_document = parameters["type"] == "Document" && url.starts_with("file:");
                    ensure!(is_document || url == "about:blank", "a request for {url}");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _has_ended = self.call("Browser.close", &json!({})).is_err();
        let _has_ended = self.child.kill().is_err();
        let _was_reaped = self.child.wait().is_ok();
    }
}
