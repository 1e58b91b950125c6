// SPDX-License-Identifier: MPL-2.0
#![doc = "Certificates from an ACME server (RFC 8555) such as Let's Encrypt: asked for when there is none, kept in a folder, and \
renewed when two thirds of their time are over.\n\n\
Who asks proves that the names are his by HTTP-01 (section 8.3): the caller answers `GET /.well-known/acme-challenge/TOKEN` by \
[`Challenges::answer`]. What the caller serves is one PEM file with key and chain ([`Acme::file`]), which is there from the start \
(signed by itself at first) and is replaced at one stroke; he reads it again when it changes. Nothing of it stops \
him: what goes wrong is told, once, and tried again later."]

mod binding;
mod client;
mod order;
mod store;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use binding::Binding;
use store::Store;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::sleep;

/// Let's Encrypt's.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// A certificate has at most so many names (Let's Encrypt's limit).
const NAMES: usize = 100;
/// Let's Encrypt lets a name fail five times an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(15 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(12 * 3_600);
/// How often it is looked whether the time has come.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// Of a server that gives certificates for minutes.
const SHORTEST_LOOK: Duration = Duration::from_secs(1);

/// What is wrong with what is wanted, or with the folder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcmeError {
    /// Nothing to be certified.
    #[error("acme-domains: {0:?} is no list of DNS names, such as sfu.example.org, without *")]
    Names(String),
    /// Where they come from.
    #[error("acme-directory: {0:?} is no address that begins with https://")]
    Directory(String),
    /// Where they are kept.
    #[error("acme-cache: {0}")]
    Folder(String),
    /// The other side's own certificate authority.
    #[error("acme-ca: {0}")]
    Authority(String),
    /// Whose customer a new account is.
    #[error("acme-eab-kid, acme-eab-key: {0}")]
    Binding(String),
    /// The system gives no thread.
    #[error("no thread could be started: {0}")]
    Thread(String),
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Config {
    /// DNS names, separated by commas.
    pub domains: String,
    /// `mailto:` addresses, separated by commas; the `mailto:` may be left out.
    pub contact: String,
    /// The ACME server's directory; empty is [`LETS_ENCRYPT`].
    pub directory: String,
    /// PEM file of the authority that has signed the ACME server's own certificate; empty: the system's.
    pub authority: String,
    /// What the authority calls its customer, where it asks for an external account binding; empty: it does not.
    pub eab_kid: String,
    /// The file with the binding's HMAC key as base64url.
    pub eab_key: PathBuf,
    /// The folder for the account, keys and certificates.
    pub folder: PathBuf,
    /// After the first failure; doubles with each.
    pub pause: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            domains: String::new(),
            contact: String::new(),
            directory: String::new(),
            authority: String::new(),
            eab_kid: String::new(),
            eab_key: PathBuf::new(),
            folder: PathBuf::new(),
            pause: FIRST_PAUSE,
        }
    }
}

/// What is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// There is a new certificate.
    Renewed,
    /// It went wrong, and is tried again.
    Failed(String),
}

/// What is to be answered to whom who asks for a token.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Mutex<Vec<(String, String)>>>);

impl Challenges {
    /// The key authorization of a token that is asked for now.
    pub fn answer(&self, token: &str) -> Option<String> {
        let known = self.lock();
        let known = known.iter().find(|(name, _)| name == token);
        known.map(|(_, answer)| answer.clone())
    }

    fn add(&self, token: &str, answer: &str) {
        self.lock().push((token.to_owned(), answer.to_owned()));
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module's description. Ends when it is dropped.
#[derive(Debug)]
pub struct Acme {
    file: PathBuf,
    challenges: Challenges,
    begin: Mutex<Option<Begin>>,
    _stop: watch::Sender<()>,
}

struct Begin {
    wanted: order::Wanted,
    store: Store,
    pause: Duration,
    stop: watch::Receiver<()>,
}

impl std::fmt::Debug for Begin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Begin({:?})", self.wanted.names)
    }
}

impl Acme {
    /// Looks at what is wanted, and makes sure that there is a certificate to begin with.
    pub fn open(config: &Config) -> Result<Self, AcmeError> {
        let names = names(&config.domains)?;
        let directory = match config.directory.as_str() {
            "" => LETS_ENCRYPT,
            directory if directory.starts_with("https://") => directory,
            other => return Err(AcmeError::Directory(other.to_owned())),
        };
        let http = client::Http::new(&config.authority).map_err(AcmeError::Authority)?;
        let binding =
            Binding::open(&config.eab_kid, &config.eab_key).map_err(AcmeError::Binding)?;
        let store = Store::open(&config.folder, &names).map_err(AcmeError::Folder)?;
        let challenges = Challenges::default();
        let (stop, stopped) = watch::channel(());
        let contact = config.contact.split(',').map(str::trim);
        let contact = contact.filter(|c| !c.is_empty()).map(|c| match c {
            c if c.starts_with("mailto:") => c.to_owned(),
            c => format!("mailto:{c}"),
        });
        let wanted = order::Wanted {
            names,
            contact: contact.collect(),
            directory: directory.to_owned(),
            binding,
            http,
            challenges: challenges.clone(),
        };
        Ok(Self {
            file: store.file().to_owned(),
            challenges,
            begin: Mutex::new(Some(Begin {
                wanted,
                store,
                pause: config.pause,
                stop: stopped,
            })),
            _stop: stop,
        })
    }

    /// The PEM file with the private key and the chain.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is asked by HTTP.
    pub fn challenges(&self) -> Challenges {
        self.challenges.clone()
    }

    /// Begins, on a thread of its own, once challenges are answered. A second time it does nothing.
    pub fn start(&self, tell: impl Fn(News) + Send + 'static) -> Result<(), AcmeError> {
        let begin = self
            .begin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(begin) = begin else {
            return Ok(());
        };
        let failed = |e: std::io::Error| AcmeError::Thread(e.to_string());
        let runtime = runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(failed)?;
        let run = move || {
            runtime.block_on(begin.run(&tell));
            // A request that is under way is not waited for.
            runtime.shutdown_background();
        };
        std::thread::Builder::new()
            .name("sfu-acme".into())
            .spawn(run)
            .map(drop)
            .map_err(failed)
    }
}

impl Begin {
    /// Keeps a certificate until it is dropped.
    async fn run(self, tell: &dyn Fn(News)) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = self.keep(tell) => {}
            // Nothing is ever sent: its end is what is waited for.
            _ = stop.changed() => {}
        }
    }

    /// Asks for certificates as they are needed.
    async fn keep(&self, tell: &dyn Fn(News)) {
        let mut pause = self.pause;
        let mut told = None;
        loop {
            let now = SystemTime::now();
            let left = self.store.due(now).duration_since(now).unwrap_or_default();
            if !left.is_zero() {
                sleep(left.clamp(SHORTEST_LOOK, LOOK_EVERY)).await;
                continue;
            }
            let renewed = order::certificate(&self.wanted, &self.store).await;
            self.wanted.challenges.clear();
            match renewed {
                Ok(()) => {
                    (pause, told) = (self.pause, None);
                    tell(News::Renewed);
                }
                Err(why) => {
                    if told.as_ref() != Some(&why) {
                        tell(News::Failed(why.clone()));
                        told = Some(why);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// The names of a list: in lower case, each once.
fn names(list: &str) -> Result<Vec<String>, AcmeError> {
    let wrong = || AcmeError::Names(list.to_owned());
    let is_label = |label: &str| {
        let plain = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let mut names = Vec::new();
    for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let is_name = name.len() <= 253 && name.contains('.') && name.split('.').all(is_label);
        // An address is no name.
        if !is_name || name.parse::<std::net::IpAddr>().is_ok() {
            return Err(wrong());
        }
        let name = name.to_ascii_lowercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.len() {
        1..=NAMES => Ok(names),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names() {
        assert_eq!(
            names(" SFU.example.org,b.example.org,sfu.example.org,").unwrap(),
            ["sfu.example.org", "b.example.org"]
        );
        for wrong in [
            "",
            ",",
            "localhost",
            "*.example.org",
            "192.0.2.1",
            "a..b",
            "-a.b",
            "a b.c",
            "../x.y",
            "https://a.b",
        ] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
        let many: Vec<_> = (0..101).map(|n| format!("a{n}.example.org")).collect();
        assert!(names(&many.join(",")).is_err());
    }

    fn folder(test: &str) -> PathBuf {
        let name = format!("sfu-acme-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn what_goes_wrong_is_told_once_and_tried_again_and_stops_nothing() {
        let folder = folder("wrong");
        // Nobody answers there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = Config {
            domains: "sfu.example.org".into(),
            directory: format!("https://127.0.0.1:{port}/dir"),
            folder: folder.clone(),
            pause: Duration::from_millis(20),
            ..Config::default()
        };
        let tries = Arc::new(Mutex::new(0));
        let counted = tries.clone();
        std::thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                *counted.lock().unwrap() += 1;
                drop(socket);
            }
        });
        let acme = Acme::open(&config).unwrap();
        let (sender, told) = std::sync::mpsc::channel();
        acme.start(move |news| {
            let _ = sender.send(news);
        })
        .unwrap();
        let first = told.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(first, News::Failed(_)), "{first:?}");
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while *tries.lock().unwrap() < 3 {
            assert!(std::time::Instant::now() < end, "it is not tried again");
            std::thread::sleep(Duration::from_millis(10));
        }
        // The same is told once; a connection may break off in more than one way.
        let all: Vec<_> = [first].into_iter().chain(told.try_iter()).collect();
        let twice = all.windows(2).any(|pair| pair[0] == pair[1]);
        assert!(!twice, "{all:?}");
        // There is one to begin with, which nobody else reads.
        let text = std::fs::read_to_string(acme.file()).unwrap();
        assert!(text.contains("PRIVATE KEY") && text.contains("BEGIN CERTIFICATE"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(acme.file()), 0o600);
            assert_eq!(mode(&folder), 0o700);
        }
        drop(acme);
        // The thread is gone, and with it who is told.
        while told.recv_timeout(Duration::from_secs(20))
            != Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
        {}
        let _ = std::fs::remove_dir_all(&folder);
    }

    #[test]
    fn what_can_not_be_is_said_at_the_start() {
        let folder = folder("said");
        let good = Config {
            domains: "sfu.example.org".into(),
            folder: folder.clone(),
            ..Config::default()
        };
        assert!(Acme::open(&good).is_ok());
        let open = |config: Config| Acme::open(&config).unwrap_err().to_string();
        for (config, words) in [
            (
                Config {
                    domains: "x".into(),
                    ..good.clone()
                },
                "acme-domains",
            ),
            (
                Config {
                    directory: "http://x.example/".into(),
                    ..good.clone()
                },
                "acme-directory",
            ),
            (
                Config {
                    authority: "/nowhere".into(),
                    ..good.clone()
                },
                "acme-ca",
            ),
            (
                Config {
                    eab_kid: "me".into(),
                    ..good.clone()
                },
                "acme-eab-key",
            ),
            (
                Config {
                    folder: PathBuf::new(),
                    ..good.clone()
                },
                "acme-cache",
            ),
            (
                Config {
                    folder: "/proc/nowhere".into(),
                    ..good.clone()
                },
                "acme-cache",
            ),
        ] {
            let error = open(config);
            assert!(error.contains(words), "{error}");
        }
        let _ = std::fs::remove_dir_all(&folder);
    }
}
