// SPDX-License-Identifier: MPL-2.0

//! Each shipped pipeline, ended by each signal at each kind of moment: it returns in time, leaves no process behind, its
//! playlists have their end and its recordings their index. And what a process that was killed leaves gets both at the
//! next start.

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_tests::ndi;
use sfu_tests::server::{environment, free_ports};

/// What is promised is 2 s; the machine may be busy.
const RETURNS: Duration = Duration::from_secs(4);
const START: Duration = Duration::from_secs(60);

/// A process group of the test's own, which is killed when dropped.
struct Run {
    child: Child,
    log: PathBuf,
    http: u16,
}

impl Run {
    fn start(name: &str, mut command: Command, http: u16) -> Self {
        let folder = ndi::repository().join("target/e2e-logs");
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let child = command
            .envs(environment().unwrap())
            .current_dir(ndi::repository())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, log, http }
    }

    fn pipeline(name: &str, pipeline: &str, keys: &[String]) -> Self {
        let (http, udp) = free_ports().unwrap();
        let mut command = Command::new(ndi::repository().join("sfu"));
        command.args(["run", pipeline]).args(keys);
        command.args([format!("PORT={http}"), format!("UDP_PORT={udp}")]);
        Self::start(name, command, http)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + START;
        while !is_so(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended before {what}: {}", self.log());
            assert!(Instant::now() < end, "no {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_it_answers(&mut self) {
        self.until("answer", |run| {
            let url = format!("http://127.0.0.1:{}/healthz", run.http);
            ureq::get(url).call().is_ok()
        });
    }

    fn signal(&self, signal: &str, whole_group: bool) {
        let id = self.child.id();
        let target = if whole_group {
            format!("-{id}")
        } else {
            id.to_string()
        };
        let sent = Command::new("kill").args([signal, "--", &target]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end. Nothing of its group may be left then.
    fn returned(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let took = asked.elapsed();
                assert!(took < RETURNS, "after {took:?}: {}", self.log());
                self.nothing_is_left();
                return (status, took);
            }
            assert!(asked.elapsed() < START, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a start has begun besides (a look for plugins, `announce` of the demo) ends by itself at once.
    fn nothing_is_left(&self) {
        let group = format!("-{}", self.child.id());
        let end = Instant::now() + Duration::from_secs(2);
        let is_there = || {
            let kill = Command::new("kill")
                .args(["-0", "--", &group])
                .stderr(Stdio::null())
                .status();
            kill.unwrap().success()
        };
        while is_there() {
            assert!(Instant::now() < end, "a process is left: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let kill = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = (kill, self.child.wait());
    }
}

/// A folder of the test's own, which is kept where the test fails.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = ndi::repository().join("target/e2e-logs").join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// All files of this kind.
    fn files(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let (mut files, mut folders) = (Vec::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if is_wanted(&entry.file_name().to_string_lossy()) {
                    files.push(path);
                }
            }
        }
        files
    }

    fn recordings(&self) -> Vec<PathBuf> {
        self.files(|name| name.ends_with(".mp4"))
    }

    /// Of the layers; the multivariant one has no end.
    fn playlists(&self) -> Vec<PathBuf> {
        self.files(|name| name.starts_with('v') && name.ends_with(".m3u8"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn has_index(file: &Path) -> bool {
    let mut head = Vec::new();
    let opened = File::open(file).unwrap();
    opened.take(8_192).read_to_end(&mut head).unwrap();
    head.windows(4).any(|w| w == b"sidx")
}

fn is_ended(playlist: &Path) -> bool {
    let text = std::fs::read_to_string(playlist).unwrap();
    text.ends_with("#EXT-X-ENDLIST\n")
}

fn assert_is_finished(folder: &Folder) {
    for file in folder.recordings() {
        assert!(has_index(&file), "{} has no index", file.display());
        let decoded = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(&file)
            // Each frame as it comes: none is left out or repeated for an even rate.
            .args(["-fps_mode", "passthrough", "-enc_time_base", "1:90000"])
            .args(["-f", "null", "-"])
            .output()
            .expect("ffmpeg must be installed");
        let said = String::from_utf8_lossy(&decoded.stderr);
        assert!(said.is_empty(), "{}: {said}", file.display());
    }
    for file in folder.playlists() {
        assert!(is_ended(&file), "{} has no end", file.display());
    }
}

/// A pipeline, its keys, and how many recordings and playlists it is to make.
type Case = (&'static str, Vec<String>, usize, usize);

/// All that runs here without hardware. `hole` takes connections and never says a word.
fn cases(folder: &Path, hole: u16) -> Vec<Case> {
    let port = |key: &str| format!("{key}={}", free_ports().unwrap().0);
    let udp = |key: &str| format!("{key}={}", free_ports().unwrap().1);
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    let (dir, hls) = (
        format!("DIR={}", folder.display()),
        format!("HLS={}", folder.display()),
    );
    let cheap = keys(&["WIDTH=320", "HEIGHT=240", "LAYERS=240:200k"]);
    let with = |more: &[&Vec<String>]| {
        more.iter()
            .flat_map(|keys| (*keys).clone())
            .collect::<Vec<_>>()
    };
    let far = |key: &str, rest: &str| vec![format!("{key}={rest}")];
    vec![
        ("sfu", vec![], 0, 0),
        ("test-to-webrtc", cheap.clone(), 0, 0),
        (
            "mix",
            with(&[&cheap, &vec![dir.clone(), "API_KEYS=key:secret".into()]]),
            1,
            0,
        ),
        (
            "record",
            with(&[&cheap, &vec![dir.clone(), "SOURCE=test".into()]]),
            1,
            0,
        ),
        ("record", vec![dir.clone()], 0, 0),
        ("whip-to-hls", vec![dir.clone()], 0, 0),
        ("re-encode", vec![], 0, 0),
        ("playout", vec![dir.clone(), "FILES=none.*".into()], 0, 0),
        ("rtmp-in", vec![port("RTMP_PORT")], 0, 0),
        (
            "rtmp-in",
            vec![port("RTMP_PORT"), "ENCODE=never".into()],
            0,
            0,
        ),
        ("srt-in", vec![udp("SRT_PORT")], 0, 0),
        (
            "rtsp-in",
            far("URL", &format!("rtsp://127.0.0.1:{hole}/a")),
            0,
            0,
        ),
        ("rtsp-in", far("URL", "rtsp://127.0.0.1:9/a"), 0, 0),
        // An address that routers are not to know (RFC 5737).
        ("rtsp-in", far("URL", "rtsp://192.0.2.1/a"), 0, 0),
        ("rtsp-out", vec![port("RTSP_PORT")], 0, 0),
        (
            "studio",
            far("PUSH", &format!("rtmp://127.0.0.1:{hole}/live/a")),
            0,
            0,
        ),
        (
            "webcam-agent",
            vec![
                dir,
                hls,
                port("RTSP_PORT"),
                "LAYERS=240:200k,120:80k".into(),
            ],
            1,
            2,
        ),
    ]
}

/// Nobody answers there; connections are taken.
fn black_hole() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn each_pipeline_ends_cleanly_on_each_signal() {
    let (_hole, hole) = black_hole();
    let mut table = String::new();
    let count = cases(Path::new("/"), hole).len();
    for n in 0..count {
        for (signal, whole_group) in [("-INT", true), ("-TERM", false)] {
            let folder = Folder::new(&format!("endings_{n}"));
            let (pipeline, keys, recordings, playlists) = cases(&folder.0, hole).remove(n);
            let mut run = Run::pipeline(&format!("endings_{n}"), pipeline, &keys);
            run.until_it_answers();
            run.until("recording, playlists", |_| {
                folder.recordings().len() >= recordings && folder.playlists().len() >= playlists
            });
            std::thread::sleep(Duration::from_millis(300));
            run.signal(signal, whole_group);
            let (status, took) = run.returned();
            table += &format!(
                "{pipeline:16} running   {signal:5} {took:?} {}\n",
                keys.join(" ")
            );
            assert_eq!(status.code(), Some(0), "{pipeline} {signal}: {}", run.log());
            assert_is_finished(&folder);
        }
    }
    println!("{table}");
}

#[test]
fn each_pipeline_ends_while_it_starts() {
    let (_hole, hole) = black_hole();
    let mut table = String::new();
    let seed = std::env::var("SFU_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut state: u64 = seed.unwrap_or(20_261_128);
    println!("SFU_SEED={state}");
    let count = cases(Path::new("/"), hole).len();
    for n in 0..count {
        for signal in ["-INT", "-TERM", "-HUP"] {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let after = Duration::from_millis((state >> 33) % 900);
            let folder = Folder::new(&format!("endings_start_{n}"));
            let (pipeline, keys, ..) = cases(&folder.0, hole).remove(n);
            let mut run = Run::pipeline(&format!("endings_start_{n}"), pipeline, &keys);
            std::thread::sleep(after);
            run.signal(signal, false);
            let (status, took) = run.returned();
            table += &format!("{pipeline:16} at {after:?} {signal:5} {took:?} {status}\n");
            // The shell has no say in its end; afterwards it is a clean one.
            let by_signal = status.signal().is_some_and(|s| [1, 2, 15].contains(&s));
            assert!(
                by_signal || [Some(0), Some(130)].contains(&status.code()),
                "{pipeline} {signal}: {status} {}",
                run.log()
            );
            assert_is_finished(&folder);
        }
    }
    println!("{table}");
}

#[test]
fn each_signal_leads_further_and_the_terminal_may_close() {
    for (signals, pause) in [
        (&["-HUP"][..], 0),
        (&["-INT", "-INT"], 0),
        (&["-TERM", "-HUP"], 0),
        (&["-INT", "-INT", "-INT", "-INT"], 300),
    ] {
        let folder = Folder::new("endings_twice");
        let (_hole, hole) = black_hole();
        let (pipeline, keys, ..) = cases(&folder.0, hole).pop().unwrap();
        let mut run = Run::pipeline("endings_twice", pipeline, &keys);
        run.until_it_answers();
        run.until("recording", |_| !folder.recordings().is_empty());
        for (n, signal) in signals.iter().enumerate() {
            if n > 0 {
                std::thread::sleep(Duration::from_millis(pause));
            }
            if run.child.try_wait().unwrap().is_none() {
                run.signal(signal, true);
            }
        }
        let (status, took) = run.returned();
        println!("{signals:?} each {pause} ms: {took:?} {status}");
        if pause == 0 {
            assert_eq!(status.code(), Some(0), "{}", run.log());
            assert_is_finished(&folder);
        }
    }
}

#[test]
fn the_script_becomes_the_process_and_nothing_outlives_it() {
    let mut run = Run::pipeline("endings_kill", "sfu", &[]);
    run.until_it_answers();
    let name = std::fs::read_to_string(format!("/proc/{}/comm", run.child.id())).unwrap();
    assert_eq!(name.trim(), "sfu-run", "build it by ./sfu build");
    run.signal("-KILL", false);
    let (status, _) = run.returned();
    assert_eq!(status.signal(), Some(9));
}

/// The line that `--print` shows, run by itself.
fn bare(name: &str, pipeline: &str, keys: &[String]) -> Run {
    let (http, udp) = free_ports().unwrap();
    let mut printed = Command::new(ndi::repository().join("sfu"));
    printed.args(["run", pipeline, "--print"]).args(keys);
    printed.args([format!("PORT={http}"), format!("UDP_PORT={udp}")]);
    let line = String::from_utf8(printed.output().unwrap().stdout).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec {line}")]);
    Run::start(name, command, http)
}

/// Lines of our elements whose sources are away or stall. `hole` takes connections and never says a word, `pipe` is a named
/// pipe that nobody writes to, which holds up whoever opens it.
fn lines(folder: &Path, hole: u16, pipe: &Path) -> Vec<String> {
    let (http, udp) = free_ports().unwrap();
    let other = || free_ports().unwrap().0;
    let (folder, pipe) = (folder.display(), pipe.display());
    vec![
        format!("sfusignaller listen=127.0.0.1:{http} udp-port={udp}"),
        format!("sfurtspserver listen=127.0.0.1:{}", other()),
        // Sources with nothing behind them, whose pipeline has no sink to wait for.
        "sfusrc stream=a".into(),
        "sfuroomsrc room=a".into(),
        "sfuroomsrc room=a sfuroomsrc room=b".into(),
        "sfuroommixer room=a".into(),
        format!("rtmpserversrc listen=127.0.0.1:{}", other()),
        format!("ndilivesrc url-address=127.0.0.1:{hole}"),
        "sfusrc stream=a ! fakesink".into(),
        "sfusrc stream=a ! sfusink stream=b".into(),
        "sfuroomsrc room=a ! decodebin ! fakesink".into(),
        "sfuroommixer room=a name=mix mix.video ! queue ! fakesink".into(),
        // It looks at statistics, which any sink has.
        "peerwatch element=watched videotestsrc is-live=true ! fakesink name=watched".into(),
        "sfusrc stream=a ! decodebin ! fakesink".into(),
        "sfusrc stream=a on-loss=eos ! mp4mux ! filesink location=/dev/null".into(),
        format!("sfusignaller listen=127.0.0.1:{http} udp-port={udp} sfusrc stream=a ! decodebin ! fakesink"),
        "sfusrc name=in stream=a sfusink name=out stream=b in.video_0 ! queue ! decodebin ! videoconvert ! out.video_0 \
         in.audio_0 ! queue ! out.audio_0"
            .into(),
        format!("sfuhlssink stream=a directory={folder}/hls"),
        format!("sfurecorder stream=a directory={folder}/recordings"),
        format!("rtmpserversrc listen=127.0.0.1:{} name=in in.video ! queue ! h264parse ! sfusink stream=a", other()),
        "srtserver listen=127.0.0.1:0 pipeline=\"appsrc name=caller ! decodebin ! fakesink\"".into(),
        format!("ndilivesrc url-address=127.0.0.1:{hole} name=in in.video ! queue ! sfusink stream=a"),
        "videotestsrc is-live=true ! valve drop=true ! sfusink stream=a".into(),
        "videotestsrc is-live=true ! valve drop=true ! simulcastenc ! fakesink".into(),
        format!("supervisor pipeline=\"rtspsrc location=rtsp://127.0.0.1:{hole}/a ! fakesink\""),
        format!("supervisor pipeline=\"filesrc location={pipe} ! fakesink\""),
        "supervisor pipeline=\"videotestsrc is-live=true ! valve drop=true ! fakesink\"".into(),
        "supervisor pipeline=\"sfusrc stream=a ! decodebin ! fakesink\"".into(),
    ]
}

#[test]
fn each_element_stands_in_a_line() {
    let lines = lines(Path::new("/"), 9, Path::new("/pipe"));
    for file in std::fs::read_dir(ndi::repository().join("docs/inspect")).unwrap() {
        let file = file.unwrap().path();
        let element = file.file_stem().unwrap().to_str().unwrap();
        let has = |line: &String| line.split(' ').any(|word| word == element);
        assert!(lines.iter().any(has), "{element}");
    }
}

fn named_pipe(folder: &Path) -> PathBuf {
    let pipe = folder.join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    pipe
}

/// What `gst-launch-1.0` does by itself, where no `sfu-run` has an eye on the time.
#[test]
fn ctrl_c_ends_gst_launch_too() {
    let (_hole, hole) = black_hole();
    let mut table = String::new();
    let mut ends = |what: &str, mut run: Run| {
        std::thread::sleep(Duration::from_millis(1_500));
        let early = run.child.try_wait().unwrap();
        assert!(early.is_none(), "{what} ended by itself: {}", run.log());
        run.signal("-INT", false);
        let (status, took) = run.returned();
        table += &format!("{took:>12?} {status} {what}\n");
    };
    for n in 0..cases(Path::new("/"), hole).len() {
        let folder = Folder::new(&format!("endings_launch_{n}"));
        let (pipeline, keys, ..) = cases(&folder.0, hole).remove(n);
        let name = format!("endings_launch_{n}");
        ends(
            &format!("{pipeline} {}", keys.join(" ")),
            bare(&name, pipeline, &keys),
        );
    }
    let folder = Folder::new("endings_lines");
    let pipe = named_pipe(&folder.0);
    for line in lines(&folder.0, hole, &pipe) {
        // What upstream's valve holds back is EOS as well: only `sfu-run` ends that.
        let holds_eos = line.starts_with("videotestsrc");
        for e in if holds_eos { &[""][..] } else { &["-e", ""] } {
            println!("{e} {line}");
            let mut command = Command::new("bash");
            command.args(["-c", &format!("exec gst-launch-1.0 {e} {line}")]);
            if line.contains("ndilivesrc") {
                command.envs(ndi::environment());
            }
            ends(
                &format!("{e} {line}"),
                Run::start("endings_lines", command, 0),
            );
        }
    }
    println!("{table}");
}

/// NULL from each state, in an application.
#[test]
fn null_returns_from_each_state() {
    gst::init().unwrap();
    gst::Registry::get().scan_path(ndi::plugins().unwrap());
    let (_hole, hole) = black_hole();
    let folder = Folder::new("endings_null");
    let pipe = named_pipe(&folder.0);
    let mut table = String::new();
    for line in lines(&folder.0, hole, &pipe) {
        for state in [
            gst::State::Null,
            gst::State::Ready,
            gst::State::Paused,
            gst::State::Playing,
        ] {
            let parts =
                gst::parse::launch_full(&line, None, gst::ParseFlags::PLACE_IN_BIN).unwrap();
            let pipeline = gst::Pipeline::new();
            pipeline.add(&parts).unwrap();
            let _ = pipeline.set_state(state);
            std::thread::sleep(Duration::from_millis(400));
            let asked = Instant::now();
            let (done, ended) = std::sync::mpsc::channel();
            std::thread::spawn(move || done.send(pipeline.set_state(gst::State::Null)));
            let ended = ended.recv_timeout(START);
            let took = asked.elapsed();
            table += &format!("{took:>12?} {state:?} {line}\n");
            assert!(ended.is_ok() && took < RETURNS, "{table}");
        }
    }
    println!("{table}");
}

#[test]
fn what_a_bare_gst_launch_left_on_sigterm_is_finished_by_the_next_start() {
    let folder = Folder::new("endings_bare");
    let (_hole, hole) = black_hole();
    let agent = || cases(&folder.0, hole).pop().unwrap();
    let (pipeline, keys, recordings, playlists) = agent();
    let mut run = bare("endings_bare", pipeline, &keys);
    run.until_it_answers();
    run.until("recording, playlists", |_| {
        folder.recordings().len() >= recordings && folder.playlists().len() >= playlists
    });
    std::thread::sleep(Duration::from_millis(1_500));
    run.signal("-TERM", false);
    let (status, _) = run.returned();
    assert_eq!(
        status.signal(),
        Some(15),
        "1.22 dies of it; does a newer one not?"
    );
    let (left, open) = (folder.recordings(), folder.playlists());
    assert!(left.iter().any(|file| !has_index(file)), "{left:?}");
    assert!(open.iter().all(|file| !is_ended(file)), "{open:?}");

    // Of another stream, which has nothing to do with those.
    let (pipeline, mut keys, ..) = agent();
    keys.push("STREAM=another".to_owned());
    let mut run = Run::pipeline("endings_bare_next", pipeline, &keys);
    run.until_it_answers();
    run.until("index", |_| left.iter().all(|file| has_index(file)));
    run.until("end of the playlists", |_| {
        open.iter().all(|file| is_ended(file))
    });
    run.signal("-INT", true);
    assert_eq!(run.returned().0.code(), Some(0));
    assert_is_finished(&folder);
}
