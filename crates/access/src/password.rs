// SPDX-License-Identifier: MPL-2.0

//! Passwords against argon2 hashes, on a thread of their own that works for half of the time and after everybody else: no
//! number of wrong ones costs anybody a frame. What was found is kept for a minute under a keyed hash, and that one is right as
//! long as it goes on being shown. Who shows the same meanwhile waits for the same end.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};
use aws_lc_rs::hmac;

/// Passwords that wait for the thread; each takes some 30 ms there.
const QUEUE: usize = 64;
/// Of one address.
const QUEUE_PER_ADDRESS: usize = 4;
/// Who wait for the end of one: they take no place of the queue.
const WAITERS: usize = 256;
/// Longer ones are none.
pub(crate) const PASSWORD_MAX: usize = 256;
/// How long a verdict is kept, and how many right and wrong ones: wrong ones don't make right ones forgotten.
const KEEP: Duration = Duration::from_secs(60);
const KEPT: usize = 2_048;
/// Wrong passwords of an address that cost it nothing; each further one doubles the time until it is heard again.
const FREE: u32 = 5;
const LONGEST: Duration = Duration::from_secs(60);
/// When an address's wrong passwords are forgotten, and of how many addresses they are known.
const FORGET: Duration = Duration::from_secs(600);
const ADDRESSES: usize = 4_096;

/// Who has no account is answered after as long as who has: a hash with the costs of `./sfu password`.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5$1m0g5Yl6YcsUKSzCqYkZ7Hqzb8l0Q1xqYHn0t2ZzWvE";

/// What is known of a password at once.
#[derive(Debug)]
pub(crate) enum Known {
    Right,
    Wrong,
    /// Nobody looks at more from there until then.
    Later(Duration),
    /// Too many others from there wait.
    Full,
    /// It must be hashed.
    Unknown(Job),
}

/// One to be hashed.
pub(crate) struct Job {
    mac: Mac,
    password: String,
    hash: Arc<str>,
    address: IpAddr,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job(…)")
    }
}

type Mac = [u8; 32];
/// Called when the verdict is known, also where it never will be.
type Done = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub(crate) struct Passwords {
    key: hmac::Key,
    shared: Arc<Shared>,
    thread: Mutex<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    stop: AtomicBool,
    hashed: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    right: Verdicts,
    wrong: Verdicts,
    addresses: HashMap<IpAddr, Failures>,
    /// What is queued or being hashed, and who wait for it.
    pending: HashMap<Mac, Waiters>,
}

#[derive(Default)]
struct Waiters(Vec<Done>);

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiters({})", self.0.len())
    }
}

impl Waiters {
    fn tell(self) {
        for done in self.0 {
            done();
        }
    }
}

/// The youngest verdicts of one kind.
#[derive(Debug, Default)]
struct Verdicts {
    at: HashMap<Mac, Instant>,
    order: VecDeque<(Mac, Instant)>,
}

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    last: Option<Instant>,
    until: Option<Instant>,
    waiting: usize,
}

impl Failures {
    fn failed(&mut self, now: Instant) {
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
        if let Some(over) = self.count.checked_sub(FREE + 1) {
            let pause = Duration::from_secs(1 << over.min(6)).min(LONGEST);
            self.until = Some(now + pause);
        }
    }
}

impl Verdicts {
    fn has(&self, mac: &Mac, now: Instant) -> bool {
        self.at.get(mac).is_some_and(|at| now < *at + KEEP)
    }

    /// What is true of a password and a hash stays true: only what nobody shows any more is forgotten.
    fn prolong(&mut self, mac: Mac, now: Instant) {
        if self.at.get(&mac).is_some_and(|at| now >= *at + KEEP / 2) {
            self.keep(mac, now);
        }
    }

    fn keep(&mut self, mac: Mac, now: Instant) {
        self.at.insert(mac, now);
        self.order.push_back((mac, now));
        while let Some((oldest, at)) = self.order.front().copied() {
            if self.order.len() <= KEPT && now < at + KEEP {
                break;
            }
            self.order.pop_front();
            if self.at.get(&oldest) == Some(&at) {
                self.at.remove(&oldest);
            }
        }
    }
}

impl Table {
    /// What is known of an address; the one that failed longest ago makes room.
    fn failures(&mut self, address: IpAddr, now: Instant) -> &mut Failures {
        if !self.addresses.contains_key(&address) && self.addresses.len() >= ADDRESSES {
            let forgotten = |f: &Failures| f.last.is_none_or(|at| now > at + FORGET);
            self.addresses.retain(|_, f| f.waiting > 0 || !forgotten(f));
            if self.addresses.len() >= ADDRESSES {
                let idle = self.addresses.iter().filter(|(_, f)| f.waiting == 0);
                let oldest = idle.min_by_key(|(_, f)| f.last).map(|(a, _)| *a);
                if let Some(oldest) = oldest {
                    self.addresses.remove(&oldest);
                }
            }
        }
        let failures = self.addresses.entry(address).or_default();
        if failures.last.is_some_and(|at| now > at + FORGET) {
            failures.count = 0;
        }
        failures
    }

    fn verdict(&mut self, job: &Job, right: bool, now: Instant) {
        let failures = self.failures(job.address, now);
        failures.waiting = failures.waiting.saturating_sub(1);
        if right {
            self.right.keep(job.mac, now);
            return;
        }
        failures.failed(now);
        self.wrong.keep(job.mac, now);
    }
}

/// Of IPv6 a network of one subscriber.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Passwords {
    pub(crate) fn new() -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| format!("no random numbers: {e}"))?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            shared: Arc::default(),
            thread: Mutex::default(),
        })
    }

    /// What is known of it without any hashing. `hash` is none where there is no such user.
    pub(crate) fn look(
        &self,
        user: &str,
        password: &str,
        hash: Option<&Arc<str>>,
        address: IpAddr,
        now: Instant,
    ) -> Known {
        let address = network_of(address);
        let mac = self.mac(user, password, hash.map_or("", |h| h));
        let mut table = self.shared.table();
        if table.right.has(&mac, now) {
            table.right.prolong(mac, now);
            return Known::Right;
        }
        if password.len() > PASSWORD_MAX || table.wrong.has(&mac, now) {
            return Known::Wrong;
        }
        let is_pending = table.pending.contains_key(&mac);
        let failures = table.failures(address, now);
        if let Some(left) = failures.until.and_then(|u| u.checked_duration_since(now)) {
            return Known::Later(left);
        }
        if failures.waiting >= QUEUE_PER_ADDRESS && !is_pending {
            return Known::Full;
        }
        Known::Unknown(Job {
            mac,
            password: password.to_owned(),
            hash: hash.cloned().unwrap_or_else(|| NOBODY.into()),
            address,
        })
    }

    /// An answer that costs no hashing. Wrong ones count as wrong passwords do; an address that has to wait is not heard.
    pub(crate) fn answer(
        &self,
        address: IpAddr,
        right: impl FnOnce() -> bool,
        now: Instant,
    ) -> Result<bool, Duration> {
        let mut table = self.shared.table();
        let failures = table.failures(network_of(address), now);
        if let Some(left) = failures.until.and_then(|u| u.checked_duration_since(now)) {
            return Err(left);
        }
        let right = right();
        if !right {
            failures.failed(now);
        }
        Ok(right)
    }

    /// The verdict is told to nobody but the table: `look` again. A user's new password is another one.
    fn mac(&self, user: &str, password: &str, hash: &str) -> Mac {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user, password, hash] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// Queues it, unless there are too many. `done` is called once, whatever becomes of it.
    pub(crate) fn hash(&self, job: Job, done: Done) -> Result<(), ()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            *thread = Some(Worker::start(self.shared.clone()).map_err(|_| ())?);
        }
        let Some(worker) = thread.as_ref() else {
            return Err(());
        };
        let (mac, address, now) = (job.mac, job.address, Instant::now());
        let mut table = self.shared.table();
        if table.right.has(&mac, now) || table.wrong.has(&mac, now) {
            drop(table);
            done();
            return Ok(());
        }
        if let Some(waiters) = table.pending.get_mut(&mac) {
            if waiters.0.len() >= WAITERS {
                return Err(());
            }
            waiters.0.push(done);
            return Ok(());
        }
        // Nobody joins one that is not queued in the end, as the table is held; the thread takes it after that.
        worker.jobs.try_send(job).map_err(drop)?;
        table.pending.insert(mac, Waiters(vec![done]));
        table.failures(address, now).waiting += 1;
        Ok(())
    }

    /// How many were hashed.
    pub(crate) fn hashed(&self) -> u64 {
        self.shared.hashed.load(Relaxed)
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(Worker { jobs, thread }) = thread.take() {
            drop(jobs);
            // The hash under way, which its costs bound.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, jobs: &Receiver<Job>) {
        // On Linux this is the thread's own; where it fails the pauses remain.
        let _ = rustix::process::setpriority_process(None, 19);
        while let Ok(job) = jobs.recv() {
            let is_over = self.stop.load(Relaxed);
            let begun = Instant::now();
            let right = !is_over && verify(&job);
            let now = Instant::now();
            let mut table = self.table();
            let waiters = table.pending.remove(&job.mac).unwrap_or_default();
            if !is_over {
                self.hashed.fetch_add(1, Relaxed);
                table.verdict(&job, right, now);
            }
            drop(table);
            waiters.tell();
            std::thread::sleep(now - begun);
        }
    }
}

impl Worker {
    fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (jobs, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("sfu-passwords".into())
            .spawn(move || shared.work(&receiver))?;
        Ok(Self { jobs, thread })
    }
}

fn verify(job: &Job) -> bool {
    let Ok(hash) = PasswordHash::new(&job.hash) else {
        return false;
    };
    // The costs and the kind are the hash's own.
    let verified = Argon2::default().verify_password(job.password.as_bytes(), &hash);
    verified.is_ok()
}

/// A line's hash for a password, where it is one that is taken.
pub fn hash(password: &str) -> Result<String, String> {
    use argon2::password_hash::{PasswordHasher, SaltString};
    if password.is_empty() {
        return Err("the password is empty".into());
    }
    if password.len() > PASSWORD_MAX {
        return Err(format!(
            "the password has more than {PASSWORD_MAX} octets: it would be taken by nobody"
        ));
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|e| format!("no random numbers: {e}"))?;
    let salt = SaltString::encode_b64(&salt).map_err(|e| e.to_string())?;
    let hashed = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hashed.map_err(|e| e.to_string())?.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn cheap(password: &str) -> Arc<str> {
        use argon2::password_hash::{PasswordHasher, SaltString};
        let salt = SaltString::encode_b64(b"0123456789").unwrap();
        let params = argon2::Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let hash = argon2.hash_password(password.as_bytes(), &salt).unwrap();
        hash.to_string().into()
    }

    fn decide(
        passwords: &Passwords,
        user: &str,
        password: &str,
        hash: Option<&Arc<str>>,
        address: &str,
    ) -> Known {
        let address = address.parse().unwrap();
        for _ in 0..2 {
            match passwords.look(user, password, hash, address, Instant::now()) {
                Known::Unknown(job) => {
                    let (sender, receiver) = mpsc::channel();
                    let told = passwords.hash(job, Box::new(move || sender.send(()).unwrap()));
                    told.unwrap();
                    receiver.recv().unwrap();
                }
                known => return known,
            }
        }
        panic!("nothing is known of it");
    }

    #[test]
    fn a_password_is_hashed_once_a_minute() {
        let passwords = Passwords::new().unwrap();
        let hash = cheap("secret");
        for _ in 0..100 {
            let known = decide(&passwords, "ann", "secret", Some(&hash), "192.0.2.1");
            assert!(matches!(known, Known::Right));
            let known = decide(&passwords, "ann", "wrong", Some(&hash), "192.0.2.1");
            assert!(matches!(known, Known::Wrong));
            let known = decide(&passwords, "bob", "secret", None, "192.0.2.1");
            assert!(matches!(known, Known::Wrong));
        }
        assert_eq!(passwords.hashed(), 3);
        let later = Instant::now() + KEEP;
        let address = "192.0.2.1".parse().unwrap();
        let known = passwords.look("ann", "secret", Some(&hash), address, later);
        assert!(matches!(known, Known::Unknown(_)));
        // Another password of the same user is another verdict.
        let known = passwords.look("ann", "secret", Some(&cheap("x")), address, Instant::now());
        assert!(matches!(known, Known::Unknown(_)));
    }

    #[test]
    fn who_guesses_is_heard_less_and_less_and_nobody_else_is() {
        let passwords = Passwords::new().unwrap();
        let hash = cheap("secret");
        let guess = |n: u32, address: &str| {
            let password = format!("guess {n}");
            decide(&passwords, "ann", &password, Some(&hash), address)
        };
        let known = decide(&passwords, "ann", "secret", Some(&hash), "192.0.2.1");
        assert!(matches!(known, Known::Right));
        for n in 0..=FREE {
            assert!(matches!(guess(n, "192.0.2.1"), Known::Wrong));
        }
        for n in 100..2_000 {
            assert!(matches!(guess(n, "192.0.2.1"), Known::Later(_)));
        }
        assert_eq!(passwords.hashed(), u64::from(FREE) + 2);
        // Who was right before stays so, and others are heard. Of IPv6 a whole network is one.
        let known = decide(&passwords, "ann", "secret", Some(&hash), "192.0.2.1");
        assert!(matches!(known, Known::Right));
        for n in 0..=FREE {
            assert!(matches!(
                guess(n + 50, &format!("2001:db8::{n}")),
                Known::Wrong
            ));
        }
        assert!(matches!(guess(60, "2001:db8::ffff"), Known::Later(_)));
        assert!(matches!(guess(60, "2001:db8:0:1::1"), Known::Wrong));
    }

    #[test]
    fn tables_are_bounded_and_the_pause_grows() {
        let hash = cheap("secret");
        let mut table = Table::default();
        let start = Instant::now();
        let job = |n: u32| Job {
            mac: crate::config::digest_of(&n.to_be_bytes()),
            password: String::new(),
            hash: hash.clone(),
            address: IpAddr::from(n.to_be_bytes()),
        };
        for n in 0..20_000 {
            table.verdict(&job(n), n % 2 == 0, start);
        }
        assert!(table.addresses.len() <= ADDRESSES);
        for kept in [&table.right, &table.wrong] {
            assert!(kept.at.len() <= KEPT && kept.order.len() <= KEPT);
        }
        let mut pauses = Vec::new();
        for _ in 0..20 {
            table.verdict(&job(30_001), false, start);
            let until = table.addresses[&IpAddr::from(30_001u32.to_be_bytes())].until;
            pauses.push(until.map_or(0, |u| (u - start).as_secs()));
        }
        assert_eq!(pauses[..5], [0; 5]);
        assert!(
            pauses.is_sorted() && pauses.last() == Some(&60),
            "{pauses:?}"
        );
    }

    #[test]
    fn the_queue_is_bounded_and_dropping_it_takes_no_time() {
        let passwords = Passwords::new().unwrap();
        let slow: Arc<str> = hash("secret").unwrap().into();
        let (mut queued, mut refused) = (0, 0);
        for n in 0..1_000u32 {
            let address = IpAddr::from(n.to_be_bytes());
            let password = format!("x{n}");
            let known = passwords.look("ann", &password, Some(&slow), address, Instant::now());
            let Known::Unknown(job) = known else {
                continue;
            };
            match passwords.hash(job, Box::new(|| {})) {
                Ok(()) => queued += 1,
                Err(()) => refused += 1,
            }
        }
        assert!(queued >= QUEUE && refused > 0, "{queued} {refused}");
        let hashed = passwords.shared.clone();
        drop(passwords);
        assert!(hashed.hashed.load(Relaxed) < QUEUE as u64);
    }

    #[test]
    fn equal_passwords_wait_for_one_end_and_take_one_place() {
        let passwords = Passwords::new().unwrap();
        let slow: Arc<str> = hash("secret").unwrap().into();
        let address = "192.0.2.1".parse().unwrap();
        let look =
            |password: &str| passwords.look("ann", password, Some(&slow), address, Instant::now());
        let (sender, receiver) = mpsc::channel();
        let queue = |job| {
            let sender = sender.clone();
            passwords.hash(job, Box::new(move || sender.send(()).unwrap_or_default()))
        };
        // All have looked before the first one's end.
        let all: Vec<_> = (0..20).map(|_| look("secret")).collect();
        for known in all {
            let Known::Unknown(job) = known else {
                panic!("it is known before it is hashed");
            };
            queue(job).unwrap();
        }
        for _ in 0..20 {
            receiver.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        assert!(matches!(look("secret"), Known::Right));
        assert_eq!(passwords.hashed(), 1);
        // It is no other's fault where places lack, and who shows what waits already needs none.
        let mut guesses = 0;
        let last = loop {
            match look(&format!("guess {guesses}")) {
                Known::Unknown(job) => queue(job).unwrap(),
                known => break known,
            }
            guesses += 1;
            assert!(guesses <= 64, "no place ever lacks");
        };
        assert!(matches!(last, Known::Full | Known::Later(_)), "{last:?}");
        let waiting = look(&format!("guess {}", guesses - 1));
        assert!(!matches!(waiting, Known::Full), "{waiting:?}");
    }

    #[test]
    fn who_wait_for_one_are_bounded() {
        let passwords = Passwords::new().unwrap();
        let slow: Arc<str> = hash("secret").unwrap().into();
        let job = |n: u32| Job {
            mac: crate::config::digest_of(&n.to_be_bytes()),
            password: String::new(),
            hash: slow.clone(),
            address: "192.0.2.1".parse().unwrap(),
        };
        // The second one waits at least as long as the first one takes, and rests for.
        let told = Arc::new(AtomicU64::new(0));
        let queue = |n| {
            let told = told.clone();
            let done = move || {
                told.fetch_add(1, Relaxed);
            };
            passwords.hash(job(n), Box::new(done)).is_ok()
        };
        assert!(queue(0));
        let joined = (0..1_000).filter(|_| queue(1)).count();
        assert!(joined >= WAITERS, "{joined}");
        let table = passwords.shared.table();
        let waiting = |w: &Waiters| w.0.len();
        assert!(table.pending.values().map(waiting).all(|n| n <= WAITERS));
        drop(table);
        drop(passwords);
        assert_eq!(told.load(Relaxed), 1 + joined as u64, "all are told");
    }

    #[test]
    fn what_goes_on_being_shown_is_not_hashed_again() {
        let passwords = Passwords::new().unwrap();
        let hash = cheap("secret");
        let known = decide(&passwords, "ann", "secret", Some(&hash), "192.0.2.1");
        assert!(matches!(known, Known::Right));
        let address = "192.0.2.1".parse().unwrap();
        let start = Instant::now();
        let look =
            |after: Duration| passwords.look("ann", "secret", Some(&hash), address, start + after);
        for n in 1..20 {
            assert!(matches!(look(KEEP * 3 / 4 * n), Known::Right), "{n}");
        }
        assert!(matches!(look(KEEP * 16), Known::Unknown(_)));
    }

    #[test]
    fn nobody_costs_as_much_as_somebody() {
        let params = |hash: &str| {
            let parsed = PasswordHash::new(hash).unwrap();
            let params = argon2::Params::try_from(&parsed).unwrap();
            assert!(parsed.hash.is_some() && parsed.salt.is_some());
            (params.m_cost(), params.t_cost(), params.p_cost())
        };
        assert_eq!(params(NOBODY), params(&hash("x").unwrap()));
    }
}
