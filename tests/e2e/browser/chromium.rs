//! A Chromium without a window, told what to do through `chromedriver`.
//!
//! It speaks W3C WebDriver over the HTTP client that the other tests use, and the browser's own protocol for what WebDriver
//! has no command for. The crate `thirtyfour` would do the same, but asks for `serde_json` with `preserve_order`: built with
//! the workspace, that would change the order of members in the very binary that is tested.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_testkit::process::node_path;
use postrider_testkit::{eventually, eventually_some, not_run, patience, target_dir, within};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The member under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How long one command may take: a page with everything on it, on a machine that does much else.
const LONGEST: Duration = Duration::from_secs(90);
/// How the browser is started. Names are looked up for this machine alone, so that nothing leaves it.
const ARGUMENTS: [&str; 15] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    // It ends when chromedriver does, however that ends.
    "--remote-debugging-pipe",
    "--disable-breakpad",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--lang=en-US",
    "--window-size=1280,900",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];
/// Runs axe-core over the page, but for what Swagger UI makes of it, and answers with a text for each thing that it finds.
const JUDGE: &str = "
    const done = arguments[0];
    const texts = (found) => found.violations.map((one) => `${one.id} (${one.impact}): ${one.help}` +
        one.nodes.map((node) => `\\n    ${node.target.join(' ')}: ${node.failureSummary.replaceAll('\\n', ' ')}`).join(''));
    axe.run({ include: [['html']], exclude: [['.swagger-ui']] }, { preload: false, rules: { 'target-size': { enabled: true } } })
        .then((found) => done(texts(found)), (error) => done([`axe failed: ${error}`]));";

/// Keys, as WebDriver writes them.
pub(super) const TAB: &str = "\u{e004}";
pub(super) const ENTER: &str = "\u{e007}";
pub(super) const SPACE: &str = " ";
pub(super) const DOWN: &str = "\u{e015}";

/// What WebDriver says of a command that it did not carry out.
struct Refusal {
    error: String,
    message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The first line says what, the rest where in the browser.
        write!(f, "{}: {}", self.error, self.message.lines().next().unwrap_or_default())
    }
}

impl Refusal {
    /// Whether the page may be about to change: what is asked for is not there yet, or is just being replaced.
    fn passes(&self) -> bool {
        let passing = [
            "no such element",
            "stale element reference",
            "element not interactable",
            "element click intercepted",
            "invalid element state",
        ];
        passing.contains(&self.error.as_str())
    }
}

/// A running `chromedriver` with all that it started; ended with the value.
struct Driver {
    child: Child,
    home: TempDir,
}

impl Driver {
    async fn start(program: &Path) -> (Self, String) {
        let home = tempfile::Builder::new().prefix("postrider-browser-").tempdir().unwrap();
        let said = home.path().join("said");
        let log = File::create(&said).unwrap();
        let mut command = Command::new(program);
        // Port 0: it takes a free one and says which.
        command.arg("--port=0").env_clear().env("HOME", home.path()).current_dir(home.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let driver = Self { child: command.spawn().unwrap(), home };
        let port = eventually_some("chromedriver says its port", async || {
            let said = fs::read_to_string(&said).unwrap_or_default();
            let (_, after) = said.split_once("started successfully on port ")?;
            let (port, _) = after.split_once('.')?;
            port.parse::<u16>().ok()
        })
        .await;
        (driver, format!("http://127.0.0.1:{port}"))
    }

    /// Processes that have the browser's directory in their command line, in whatever group they are.
    fn rest(&self) -> Vec<Pid> {
        let home = self.home.path().display().to_string();
        let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let ours = processes.filter(|process| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&home)
        });
        ours.filter_map(|process| Pid::from_raw(process.file_name().to_str()?.parse().ok()?)).collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Nothing may panic here; what has ended already is as well.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        self.child.wait().ok();
        for process in self.rest() {
            kill_process(process, Signal::KILL).ok();
        }
    }
}

/// A browser with one tab, at one console.
pub(super) struct Browser {
    http: reqwest::Client,
    session: String,
    origin: String,
    axe: String,
    _driver: Driver,
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// A link, a button or a menu with exactly this text.
pub(super) fn named(text: &str) -> String {
    format!("//*[self::a or self::button or self::summary][normalize-space()=\"{text}\"]")
}

fn locator(target: &str) -> Value {
    let using = if target.starts_with("//") { "xpath" } else { "css selector" };
    json!({ "using": using, "value": target })
}

/// Starts a browser, or counts the running test as not run.
pub(super) async fn start(origin: &str, scripts: bool) -> Option<Browser> {
    let (Some(chromedriver), Some(_)) = (program("chromedriver"), program("chromium")) else {
        not_run("there is no chromium or no chromedriver; run dev/setup test");
        return None;
    };
    let Ok(axe) = fs::read_to_string(node_path()?.join("axe-core/axe.min.js")) else {
        not_run("there is no axe-core for the tests; run dev/setup test");
        return None;
    };
    let (driver, address) = Driver::start(&chromedriver).await;
    let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).to_vec();
    arguments.push(format!("--user-data-dir={}", driver.home.path().join("profile").display()));
    // 2: no page runs a script.
    let preferences = match scripts {
        true => json!({}),
        false => json!({ "profile.managed_default_content_settings.javascript": 2 }),
    };
    let wanted = json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": { "args": arguments, "prefs": preferences },
        // Without mere advice, which is below.
        "goog:loggingPrefs": { "browser": "INFO" },
        "timeouts": { "implicit": 0, "pageLoad": 60_000, "script": 60_000 },
    } } });
    let mut browser = Browser {
        http: postrider_testkit::http::client(),
        session: address,
        origin: origin.to_owned(),
        axe,
        _driver: driver,
    };
    let made = browser.post("/session", &wanted).await;
    browser.session = format!("{}/session/{}", browser.session, made["sessionId"].as_str().unwrap());
    Some(browser)
}

impl Browser {
    async fn command(&self, method: Method, path: &str, body: &Value) -> Result<Value, Refusal> {
        let mut request =
            self.http.request(method.clone(), format!("{}{path}", self.session)).timeout(LONGEST);
        if method == Method::POST {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("chromedriver, {path}: {error}"));
        let done = answer.status().is_success();
        let mut value = answer.json::<Value>().await.unwrap()["value"].take();
        let mut text = |name: &str| value[name].take().as_str().unwrap_or_default().to_owned();
        if done { Ok(value) } else { Err(Refusal { error: text("error"), message: text("message") }) }
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.command(Method::POST, path, body).await.unwrap_or_else(|refusal| panic!("{path}: {refusal}"))
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.command(Method::GET, path, &Value::Null).await;
        answer.unwrap_or_else(|refusal| panic!("{path}: {refusal}"))
    }

    /// A command of the browser's own protocol.
    async fn own(&self, name: &str, parameters: &Value) -> Value {
        self.post("/goog/cdp/execute", &json!({ "cmd": name, "params": parameters })).await
    }

    /// Goes to a path of the console.
    pub(super) async fn open(&self, path: &str) {
        self.post("/url", &json!({ "url": format!("{}{path}", self.origin) })).await;
    }

    /// Loads the page again.
    pub(super) async fn reload(&self) {
        self.post("/refresh", &json!({})).await;
    }

    /// The path and the query of the page.
    pub(super) async fn place(&self) -> String {
        let url = self.get("/url").await;
        let url = url.as_str().unwrap();
        url.strip_prefix(&self.origin).unwrap_or(url).to_owned()
    }

    /// Waits until the page is this one.
    pub(super) async fn arrives_at(&self, path: &str) {
        let mut last = String::new();
        let arrived = within(patience(), async || {
            last = self.place().await;
            (last == path).then_some(())
        });
        if arrived.await.is_none() {
            self.fails(&format!("the page is {last} and not {path}")).await;
        }
    }

    async fn try_element(
        &self,
        target: &str,
        method: &Method,
        what: &str,
        body: &Value,
    ) -> Result<Value, Refusal> {
        let found = self.command(Method::POST, "/element", &locator(target)).await?;
        let id = found[ELEMENT].as_str().unwrap();
        self.command(method.clone(), &format!("/element/{id}/{what}"), body).await
    }

    /// Does something with the first element of this kind, as soon as that can be done.
    async fn element(&self, target: &str, method: Method, what: &str, body: &Value) -> Value {
        let mut last = String::new();
        let done = within(patience(), async || match self.try_element(target, &method, what, body).await {
            Ok(value) => Some(value),
            Err(refusal) => {
                assert!(refusal.passes(), "{target}, {what}: {refusal}");
                last = refusal.to_string();
                None
            }
        });
        match done.await {
            Some(value) => value,
            None => self.fails(&format!("{target}, {what}: {last}")).await,
        }
    }

    /// Clicks on something.
    pub(super) async fn click(&self, target: &str) {
        self.element(target, Method::POST, "click", &json!({})).await;
    }

    /// Writes into a field, in place of what is there.
    pub(super) async fn fill(&self, target: &str, text: &str) {
        self.element(target, Method::POST, "clear", &json!({})).await;
        self.element(target, Method::POST, "value", &json!({ "text": text })).await;
    }

    /// Presses a key, and lets it go. Those without a character have one of the private area of Unicode: see [`TAB`].
    pub(super) async fn press(&self, key: &str) {
        let presses = |kind: &str| json!({ "type": kind, "value": key });
        let keyboard =
            json!({ "type": "key", "id": "keyboard", "actions": [presses("keyDown"), presses("keyUp")] });
        self.post("/actions", &json!({ "actions": [keyboard] })).await;
    }

    /// Types a text, wherever the focus is.
    pub(super) async fn types(&self, text: &str) {
        let key = |c: char| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": c.to_string() }));
        let actions: Vec<Value> = text.chars().flat_map(key).collect();
        self.post(
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }),
        )
        .await;
    }

    /// Chooses an option of a menu by its value.
    pub(super) async fn choose(&self, menu: &str, value: &str) {
        self.click(&format!("{menu} option[value=\"{value}\"]")).await;
    }

    /// What a field holds.
    pub(super) async fn value(&self, target: &str) -> String {
        let value = self.element(target, Method::GET, "property/value", &Value::Null).await;
        value.as_str().unwrap_or_default().to_owned()
    }

    /// An attribute; nothing if it is not there.
    pub(super) async fn attribute(&self, target: &str, name: &str) -> Option<String> {
        let value = self.element(target, Method::GET, &format!("attribute/{name}"), &Value::Null).await;
        value.as_str().map(str::to_owned)
    }

    /// The text of the first element of this kind.
    pub(super) async fn text(&self, target: &str) -> String {
        let text = self.element(target, Method::GET, "text", &Value::Null).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Whether the element is on the page and can be seen.
    pub(super) async fn shows(&self, target: &str) -> bool {
        let shown = self.try_element(target, &Method::GET, "displayed", &Value::Null).await;
        shown.is_ok_and(|shown| shown == true)
    }

    /// How many elements of this kind there are.
    pub(super) async fn count(&self, target: &str) -> usize {
        self.post("/elements", &locator(target)).await.as_array().map_or(0, Vec::len)
    }

    /// Waits until an element can be seen.
    pub(super) async fn sees(&self, target: &str) {
        if within(patience(), async || self.shows(target).await.then_some(())).await.is_none() {
            self.fails(&format!("there is no {target}")).await;
        }
    }

    /// Waits until no such element is there.
    pub(super) async fn misses(&self, target: &str) {
        if within(patience(), async || (self.count(target).await == 0).then_some(())).await.is_none() {
            self.fails(&format!("there is still {target}")).await;
        }
    }

    /// Waits until the first element of this kind says something.
    pub(super) async fn reads(&self, target: &str, text: &str) {
        let mut last = Value::Null;
        let read = within(patience(), async || {
            last = self.try_element(target, &Method::GET, "text", &Value::Null).await.ok()?;
            last.as_str()?.contains(text).then_some(())
        });
        if read.await.is_none() {
            self.fails(&format!("{target} says {last} and not {text:?}")).await;
        }
    }

    /// Keeps a picture of the page, and fails the test.
    async fn fails(&self, why: &str) -> ! {
        let place = self.place().await;
        let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
        let picture = self.picture(&format!("failed-{test}")).await;
        let said = self.log().await.join("\n");
        panic!("at {place}: {why}; see {}\n{said}", picture.display())
    }

    /// Runs a script in the page, and returns what it returns.
    pub(super) async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// What the browser complained of since it was asked last: scripts that failed, files that were refused.
    pub(super) async fn log(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }

    /// What axe-core finds on the page.
    pub(super) async fn barriers(&self) -> Vec<String> {
        self.run(&self.axe).await;
        let found = self.post("/execute/async", &json!({ "script": JUDGE, "args": [] })).await;
        serde_json::from_value(found).unwrap()
    }

    /// What the page asked other hosts for.
    pub(super) async fn elsewhere(&self) -> Vec<String> {
        let script = "return performance.getEntriesByType('resource').map((entry) => entry.name)
            .filter((name) => !name.startsWith(location.origin + '/') && !name.startsWith('data:'))";
        serde_json::from_value(self.run(script).await).unwrap()
    }

    /// The status that the page came with.
    pub(super) async fn status(&self) -> u64 {
        let script = "return performance.getEntriesByType('navigation')[0].responseStatus";
        self.run(script).await.as_u64().unwrap()
    }

    /// Shows pages as somebody sees them who prefers `light` or `dark`.
    pub(super) async fn prefers(&self, shade: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": shade }]);
        self.own("Emulation.setEmulatedMedia", &json!({ "features": features })).await;
    }

    /// Shows pages as somebody sees them who wants things to move, or not to.
    pub(super) async fn prefers_motion(&self, wanted: bool) {
        let value = if wanted { "no-preference" } else { "reduce" };
        let features = json!([{ "name": "prefers-reduced-motion", "value": value }]);
        self.own("Emulation.setEmulatedMedia", &json!({ "features": features })).await;
    }

    /// Makes the window so wide, CSS pixels.
    pub(super) async fn widen(&self, width: u32) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.own("Emulation.setDeviceMetricsOverride", &size).await;
    }

    /// How far the page reaches beyond the right edge of the window, CSS pixels.
    pub(super) async fn overhang(&self) -> i64 {
        let script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.run(script).await.as_i64().unwrap()
    }

    /// Keeps a picture of the whole page among the reports of the tests.
    pub(super) async fn picture(&self, name: &str) -> PathBuf {
        let size = self.own("Page.getLayoutMetrics", &json!({})).await["cssContentSize"].take();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let how = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.own("Page.captureScreenshot", &how).await;
        let picture = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let directory = target_dir().join("test-report/screens");
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join(format!("{name}.png"));
        fs::write(&file, picture).unwrap();
        file
    }

    /// Logs in with a token, and leaves pages as they are once loaded: they do not refresh themselves.
    pub(super) async fn log_in(&self, token: &str) {
        self.open("/login").await;
        self.fill("input[name=token]", token).await;
        self.click(&named("Log in")).await;
        eventually("the login leads to the console", async || !self.place().await.starts_with("/login"))
            .await;
    }

    /// How often pages refresh themselves from now on, seconds; 0 for never.
    pub(super) async fn refreshes_every(&self, seconds: u32) {
        self.run(&format!("localStorage.setItem('refresh', '{seconds}')")).await;
    }
}
