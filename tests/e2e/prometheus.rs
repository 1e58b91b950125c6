// SPDX-License-Identifier: MPL-2.0

//! What is in `deploy/` for Prometheus and Grafana: a real `prometheus` reads a run by it, and each panel shows something.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sfu_tests::load::{self, Running};
use sfu_tests::ndi::repository;
use sfu_tests::server::{Server, free_ports};

const PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 \
    ! sfusink name=out stream=test layers=360:400k,180:150k audiotestsrc is-live=true ! out.audio_0";

fn deploy(file: &str) -> PathBuf {
    repository().join("deploy").join(file)
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("apt-get install prometheus");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// The configuration in `deploy/` for this server, in a folder of its own with what it names.
fn configuration(server: &Server) -> PathBuf {
    let folder = repository().join("target/e2e-logs/prometheus");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let rules = "gst-sfu.rules.yml";
    std::fs::copy(deploy("prometheus").join(rules), folder.join(rules)).unwrap();
    let config = std::fs::read_to_string(deploy("prometheus/prometheus.yml")).unwrap();
    let address = server.url("");
    let config = config
        .replace("localhost:8080", address.trim_start_matches("http://"))
        .replace("15s", "1s");
    let path = folder.join("prometheus.yml");
    std::fs::write(&path, config).unwrap();
    path
}

fn start(config: &Path) -> (Running, String) {
    let (port, _) = free_ports().unwrap();
    let folder = config.parent().unwrap();
    let log = std::fs::File::create(folder.join("prometheus.log")).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.join("data").display()
        ))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("apt-get install prometheus");
    (Running(child), format!("http://127.0.0.1:{port}"))
}

/// What an alert looks for.
fn alert<'a>(rules: &'a str, name: &str) -> &'a str {
    let (_, rule) = rules.split_once(&format!("alert: {name}\n")).unwrap();
    let (_, expression) = rule.split_once("expr: ").unwrap();
    expression.lines().next().unwrap()
}

/// How many series an expression has now.
fn series(prometheus: &str, expression: &str) -> Result<usize, String> {
    let request = ureq::get(format!("{prometheus}/api/v1/query")).query("query", expression);
    let mut answer = request.call().map_err(|e| e.to_string())?;
    let body = answer
        .body_mut()
        .read_to_string()
        .map_err(|e| e.to_string())?;
    let found: Value = serde_json::from_str(&body).map_err(|e| e.to_string())?;
    Ok(found["data"]["result"].as_array().map_or(0, Vec::len))
}

/// Each panel's title and expression, as Grafana asks for it with everything chosen.
fn panels(dashboard: &Value) -> Vec<(String, String)> {
    let all = dashboard["panels"].as_array().unwrap().iter();
    all.filter(|panel| panel["type"] != "row")
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap();
            let targets = panel["targets"].as_array().unwrap().iter();
            targets.map(move |target| (title.to_owned(), target["expr"].as_str().unwrap()))
        })
        .map(|(title, expression)| {
            let filled = expression
                .replace("$__rate_interval", "10s")
                .replace("$instance", ".*")
                .replace("$stream", ".*");
            (title, filled)
        })
        .collect()
}

/// The figures that a text speaks of.
fn figures(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let figures = words.filter(|w| w.starts_with("sfu_") || w.starts_with("process_"));
    figures
        .map(|w| w.trim_end_matches("_bucket").to_owned())
        .collect()
}

#[test]
fn prometheus_reads_a_run_and_each_panel_shows_something() {
    let server = Server::launch("prometheus-server", PICTURE).unwrap();
    server.wait_for_stream("test").unwrap();
    let _viewers = load::watch(&server.url("/whep/test"), 3, "90s").unwrap();
    // Where nobody answers.
    let (port, _) = free_ports().unwrap();
    let push = json!({ "stream": "test", "url": format!("rtmp://127.0.0.1:{port}/app/key") });
    ureq::post(server.url("/api/v1/pushes"))
        .header("Content-Type", "application/json")
        .send(push.to_string())
        .unwrap();

    let config = configuration(&server);
    let checked = promtool(&["check", "config", config.to_str().unwrap()], "");
    assert!(checked.status.success(), "{}", text(&checked));

    let page = server.get("/metrics").unwrap();
    let checked = promtool(&["check", "metrics"], &page);
    // It also has opinions on names; those that there are stay for who has them on a page.
    assert_ne!(checked.status.code(), Some(1), "{}", text(&checked));
    for line in text(&checked).lines() {
        assert!(
            line.contains("base unit") || line.contains("abbreviated"),
            "{line}"
        );
    }

    let dashboard = std::fs::read_to_string(deploy("grafana/gst-sfu.json")).unwrap();
    let rules = std::fs::read_to_string(deploy("prometheus/gst-sfu.rules.yml")).unwrap();
    let (_prometheus, url) = start(&config);
    let mut missing = panels(&serde_json::from_str(&dashboard).unwrap());
    assert!(missing.len() > 30, "{}", missing.len());
    missing.push(("an alert".into(), alert(&rules, "SfuPushDown").into()));
    let end = Instant::now() + Duration::from_secs(60);
    while !missing.is_empty() {
        missing.retain(|(_, expression)| {
            series(&url, expression).is_ok_and(|count| count == 0)
                || series(&url, expression).is_err()
        });
        assert!(Instant::now() < end, "nothing to show: {missing:#?}");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(
        series(&url, "up == 1"),
        Ok(1),
        "it reads OpenMetrics without an error"
    );
    let page = server.get("/metrics").unwrap();
    let told = figures(&page);
    for figure in figures(&format!("{rules}{dashboard}")) {
        assert!(
            told.contains(&figure),
            "{figure} is in deploy/ and nowhere else"
        );
    }
}
