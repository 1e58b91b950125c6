// SPDX-License-Identifier: MPL-2.0

use std::path::PathBuf;

use super::*;

/// A folder of a test's own, which goes with it.
pub(in crate::record) struct Folder(pub(in crate::record) PathBuf);

impl Folder {
    pub(in crate::record) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sfurecorder-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn made(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut made = ((content.len() + 8) as u32).to_be_bytes().to_vec();
    made.extend(kind);
    made.extend(content);
    made
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// What a muxer begins with: one track with pictures, dated in ms.
fn header() -> Vec<u8> {
    let hdlr = [words(&[0, 0]), b"vide".to_vec(), words(&[0, 0, 0])].concat();
    let mdia = [
        made(b"mdhd", &words(&[0, 0, 0, 1_000, 0])),
        made(b"hdlr", &hdlr),
    ]
    .concat();
    let trak = [made(b"tkhd", &words(&[0, 0, 0, 1])), made(b"mdia", &mdia)].concat();
    let moov = made(b"moov", &made(b"trak", &trak));
    [made(b"ftyp", b"iso6"), moov].concat()
}

/// The `n`th fragment: ten frames of 100 ms, and media that is as long as wanted.
fn fragment(n: u32, key: bool, length: usize) -> Vec<u8> {
    let flags = if key { 0 } else { 0x1_0000 };
    let traf = [
        made(b"tfhd", &words(&[0x8, 1, 100])),
        made(b"tfdt", &words(&[0, n * 1_000])),
        made(b"trun", &words(&[0x5, 10, 0, flags])),
    ];
    let moof = made(b"moof", &made(b"traf", &traf.concat()));
    let mdat = made(b"mdat", &vec![n as u8; length]);
    [made(b"styp", b"iso6"), moof, mdat].concat()
}

fn about(stream: &str) -> About {
    About::new(stream, &Of::Stream, Duration::ZERO)
}

/// A recording of `count` fragments. A killed process leaves it without an index, and with something after the last one.
pub(in crate::record) fn record(path: &Path, stream: &str, count: u32, killed: bool) {
    let mut writer = Writer::new(path, about(stream));
    writer.write([&header()[..]].into_iter()).unwrap();
    for n in 0..count {
        writer
            .write([&fragment(n, n % 2 == 0, 100)[..]].into_iter())
            .unwrap();
    }
    if killed {
        let mut torn = fragment(count, true, 5_000);
        torn.truncate(900);
        let at = writer.committed;
        // As write_all_at() would have left it.
        let moof = torn.windows(4).position(|w| w == b"moof").unwrap();
        torn[moof..moof + 4].copy_from_slice(b"free");
        writer
            .file
            .as_ref()
            .unwrap()
            .write_all_at(&torn, at)
            .unwrap();
    } else {
        let written = writer.finish().unwrap();
        assert_eq!(written.fragments, u64::from(count));
        assert_eq!(written.duration, Duration::from_secs(count.into()));
    }
}

fn kinds(path: &Path) -> Vec<String> {
    let data = std::fs::read(path).unwrap();
    let (mut at, mut kinds) = (0, Vec::new());
    while let Some(header) = Header::read(&data[at..]) {
        kinds.push(String::from_utf8_lossy(&header.kind).into_owned());
        at += header.size as usize;
        if at > data.len() {
            kinds.push("torn".into());
            break;
        }
    }
    kinds
}

#[test]
fn a_recording_is_whole_however_its_bytes_come() {
    let folder = Folder::new("whole");
    let path = folder.0.join("a.mp4");
    let bytes = [header(), fragment(0, true, 10), fragment(1, false, 3_000)].concat();
    for step in [1, 7, 64, bytes.len()] {
        let mut writer = Writer::new(&path, about("a/b"));
        for piece in bytes.chunks(step) {
            writer.write([piece].into_iter()).unwrap();
        }
        assert_eq!(
            Recording::read(&path).unwrap().unwrap().state,
            State::Recording
        );
        let written = writer.finish().unwrap();
        assert_eq!(
            (written.fragments, written.duration),
            (2, Duration::from_secs(2))
        );
        assert_eq!(
            kinds(&path),
            [
                "ftyp", "moov", "uuid", "sidx", "free", "moof", "mdat", "moof", "mdat"
            ]
        );
        let recording = Recording::read(&path).unwrap().unwrap();
        assert_eq!(recording.about.stream, "a/b");
        assert_eq!(recording.state, State::Finished);
        assert_eq!(recording.duration, Duration::from_secs(2));
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn nothing_is_written_over() {
    let folder = Folder::new("over");
    let path = folder.0.join("a.mp4");
    std::fs::write(&path, "foreign").unwrap();
    let mut writer = Writer::new(&path, about("a"));
    let bytes = [header(), fragment(0, true, 10)].concat();
    let error = writer.write([&bytes[..]].into_iter()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"foreign");
    assert_eq!(
        std::fs::read_dir(&folder.0).unwrap().count(),
        1,
        "nothing else is left"
    );
}

#[test]
fn what_a_killed_process_left_is_read_and_repaired() {
    let folder = Folder::new("repair");
    let path = folder.0.join("a.mp4");
    record(&path, "a", 5, true);
    let recording = Recording::read(&path).unwrap().unwrap();
    assert_eq!(recording.state, State::Unfinished);
    assert_eq!(recording.duration, Duration::from_secs(5));
    assert_eq!(kinds(&path).last().unwrap(), "torn");
    assert!(repair(&path).unwrap());
    assert!(!repair(&path).unwrap(), "done already");
    let repaired = Recording::read(&path).unwrap().unwrap();
    assert_eq!(repaired.state, State::Finished);
    assert_eq!(repaired.duration, Duration::from_secs(5));
    assert_eq!(repaired.modified, recording.modified);
    assert_eq!(kinds(&path).last().unwrap(), "mdat");
}

#[test]
fn a_file_that_is_written_is_not_repaired() {
    let folder = Folder::new("locked");
    let path = folder.0.join("a.mp4");
    let mut writer = Writer::new(&path, about("a"));
    let bytes = [header(), fragment(0, true, 10)].concat();
    writer.write([&bytes[..]].into_iter()).unwrap();
    assert!(!repair(&path).unwrap());
    assert!(!is_left(&path, &Whose::Stream("a".into())).unwrap());
    drop(writer);
    assert!(repair(&path).unwrap());
}

#[test]
fn no_cut_of_a_recording_confuses_its_reader() {
    let folder = Folder::new("cut");
    let (path, cut) = (folder.0.join("a.mp4"), folder.0.join("b.mp4"));
    record(&path, "a", 3, false);
    let data = std::fs::read(&path).unwrap();
    for length in (0..data.len()).step_by(13) {
        std::fs::write(&cut, &data[..length]).unwrap();
        let read = Recording::read(&cut).unwrap();
        assert!(read.is_none_or(|r| r.duration <= Duration::from_secs(3)));
    }
    for (at, byte) in [(3, 0), (0, 0xff), (4, b'x'), (20, 0xff), (60, 0x80)] {
        let mut broken = data.clone();
        broken[at] = byte;
        std::fs::write(&cut, &broken).unwrap();
        let _ = Recording::read(&cut);
    }
}

#[test]
fn a_repair_that_is_killed_at_any_write_loses_nothing() {
    let folder = Folder::new("repair-killed");
    let (path, half) = (folder.0.join("a.mp4"), folder.0.join("b.mp4"));
    record(&path, "a", 5, true);
    let before = std::fs::read(&path).unwrap();
    let shown = kinds(&path);
    // What is before the fragments, and those.
    let whole = &shown[..4 + 2 * 5];
    assert!(repair(&path).unwrap());
    let repaired = std::fs::read(&path).unwrap();
    let at = Beginning::read(&File::open(&path).unwrap(), repaired.len() as u64);
    let at = at.unwrap().unwrap().index_at as usize;
    // It is cut, gets some or all of the index, and last the index's size and type.
    let mut states = vec![before.clone(), before[..repaired.len()].to_vec()];
    for written in [1, 8, 100, 4_096, INDEX_ROOM - 8] {
        let mut state = before[..repaired.len()].to_vec();
        let from = at + 8;
        state[from..from + written].copy_from_slice(&repaired[from..from + written]);
        states.push(state);
    }
    states.push(repaired.clone());
    for (n, state) in states.iter().enumerate() {
        std::fs::write(&half, state).unwrap();
        let read = Recording::read(&half).unwrap().unwrap();
        assert_eq!(read.duration, Duration::from_secs(5), "state {n} plays");
        if state != &repaired {
            assert_eq!(&kinds(&half)[..whole.len()], whole, "state {n}");
            assert!(repair(&half).unwrap(), "state {n}");
        }
        assert!(!repair(&half).unwrap(), "state {n} is done");
        assert!(std::fs::read(&half).unwrap() == repaired, "state {n}");
    }
}

#[test]
fn what_is_not_left_over_is_not_touched() {
    let folder = Folder::new("not-left");
    let path = folder.0.join("a.mp4");
    record(&path, "a", 3, true);
    let left = std::fs::read(&path).unwrap();
    let foreign = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut data = left.clone();
        change(&mut data);
        data
    };
    let ours = left.windows(16).position(|w| w == OURS).unwrap();
    record(&folder.0.join("b.mp4"), "a", 3, false);
    let finished = std::fs::read(folder.0.join("b.mp4")).unwrap();
    for (what, data) in [
        ("empty", Vec::new()),
        ("text", b"nothing of ours".to_vec()),
        ("another's mark", foreign(&|data| data[ours] ^= 1)),
        ("no name in it", foreign(&|data| data[ours + 16] = b'[')),
        ("cut in its header", left[..ours].to_vec()),
        ("no fragment", left[..ours + 200].to_vec()),
        ("finished", finished),
    ] {
        std::fs::write(&path, &data).unwrap();
        assert!(!repair(&path).unwrap_or(false), "{what}");
        assert!(std::fs::read(&path).unwrap() == data, "{what}");
    }
    // A reader that looks in between is waited for.
    std::fs::write(&path, &left).unwrap();
    let reader = File::open(&path).unwrap();
    reader.lock_shared().unwrap();
    let soon = std::thread::spawn(move || {
        std::thread::sleep(LOCK_AGAIN);
        drop(reader);
    });
    assert!(repair(&path).unwrap());
    soon.join().unwrap();
}
