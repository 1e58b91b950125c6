// SPDX-License-Identifier: MPL-2.0

//! A server that is asked who may (a webhook), as MediaMTX and nginx-rtmp ask theirs. On threads of their own, with a time
//! limit, a bounded queue, and verdicts that are kept for a while under a keyed hash; no answer is a no.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::json;

use crate::Action;
use crate::password::network_of;
use crate::remote::{Address, Client, TIME};
use crate::visitor::Want;

/// Questions at a time, those that wait, and those of one address.
const THREADS: usize = 8;
const QUEUE: usize = 256;
const QUEUE_PER_ADDRESS: usize = 64;
/// How long what was answered counts. Running sessions are asked for again after that, and end when that stays without an
/// answer for as long as `PATIENCE`.
pub(crate) const YES: Duration = Duration::from_secs(60);
const NO: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);
/// Verdicts that are kept: the oldest make room.
const KEPT: usize = 4_096;
/// What is longer is nobody's name, password or token.
const PART_MAX: usize = 8 * 1024;

/// In whose words it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Convention {
    /// JSON: `user`, `password`, `token`, `ip`, `action`, `path`, `protocol`.
    MediaMtx,
    /// A form: `call`, `name`, `addr`, `app`, and what the client showed.
    Nginx,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Webhook {
    pub(crate) address: Address,
    pub(crate) convention: Convention,
}

/// About whom.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) address: Option<IpAddr>,
    pub(crate) protocol: &'static str,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) token: String,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asker({:?}, …)", self.address)
    }
}

type Mac = [u8; 32];
type Done = Box<dyn FnOnce() + Send>;

/// What is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Yes,
    No,
    /// Nobody answered.
    Silent,
    /// It has to be asked.
    Unknown,
}

/// Questions to be asked.
#[derive(Debug)]
pub(crate) struct Job {
    webhook: Webhook,
    asker: Arc<Asker>,
    wants: Vec<Want>,
    since: Instant,
}

#[derive(Debug)]
pub(crate) struct Webhooks {
    shared: Arc<Shared>,
    jobs: Mutex<Option<SyncSender<(Job, Done)>>>,
}

#[derive(Debug)]
struct Shared {
    key: hmac::Key,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    verdicts: HashMap<Mac, Known>,
    order: VecDeque<(Mac, Instant)>,
    waiting: HashMap<IpAddr, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    verdict: Verdict,
    at: Instant,
    /// When it last was yes.
    yes: Option<Instant>,
    pending: bool,
}

impl Webhooks {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self {
            shared: Arc::new(Shared {
                key: hmac::Key::new(hmac::HMAC_SHA256, key),
                table: Mutex::default(),
            }),
            jobs: Mutex::default(),
        }
    }

    /// What is known of all of that, for who comes.
    pub(crate) fn look(
        &self,
        webhook: &Webhook,
        asker: &Asker,
        wants: &[Want],
        now: Instant,
    ) -> Verdict {
        let table = self.shared.table();
        let of = |want: &Want| {
            let known = table.verdicts.get(&self.shared.mac(webhook, asker, want));
            let known = known.filter(|known| now < known.at + kept(known.verdict));
            known.map_or(Verdict::Unknown, |known| known.verdict)
        };
        let verdicts: Vec<Verdict> = wants.iter().map(of).collect();
        let first = |wanted| verdicts.contains(&wanted).then_some(wanted);
        first(Verdict::No)
            .or(first(Verdict::Silent))
            .or(first(Verdict::Unknown))
            .unwrap_or(Verdict::Yes)
    }

    /// The same for who was let in: what is too old is asked again meanwhile, and counts for some time more.
    pub(crate) fn still(
        &self,
        webhook: &Webhook,
        asker: &Arc<Asker>,
        wants: &[Want],
        now: Instant,
    ) -> Verdict {
        let mut again = Vec::new();
        let mut table = self.shared.table();
        for want in wants {
            let mac = self.shared.mac(webhook, asker, want);
            let Some(known) = table.verdicts.get_mut(&mac) else {
                // Others made room of it: the question is new, and the session was let in.
                let known = Known {
                    verdict: Verdict::Silent,
                    at: now,
                    yes: Some(now),
                    pending: true,
                };
                table.keep(mac, known, now);
                again.push(want.clone());
                continue;
            };
            if known.verdict == Verdict::No {
                return Verdict::No;
            }
            if known.yes.is_none_or(|at| now >= at + YES + PATIENCE) {
                return Verdict::Silent;
            }
            if now >= known.at + kept(known.verdict) && !known.pending {
                known.pending = true;
                again.push(want.clone());
            }
        }
        drop(table);
        if !again.is_empty() {
            let job = Job {
                webhook: webhook.clone(),
                asker: asker.clone(),
                wants: again.clone(),
                since: now,
            };
            if self.ask(job, Box::new(|| {})).is_err() {
                let mut table = self.shared.table();
                for want in &again {
                    let mac = self.shared.mac(webhook, asker, want);
                    if let Some(known) = table.verdicts.get_mut(&mac) {
                        known.pending = false;
                    }
                }
            }
        }
        Verdict::Yes
    }

    pub(crate) fn job(webhook: &Webhook, asker: Arc<Asker>, wants: &[Want]) -> Job {
        Job {
            webhook: webhook.clone(),
            asker,
            wants: wants.to_vec(),
            since: Instant::now(),
        }
    }

    /// Queues it, unless there are too many. `done` is called once, whatever becomes of it.
    pub(crate) fn ask(&self, job: Job, done: Done) -> Result<(), ()> {
        let address = network_of(job.asker.address.unwrap_or(IpAddr::from([0; 4])));
        {
            let mut table = self.shared.table();
            let waiting = table.waiting.entry(address).or_default();
            if *waiting >= QUEUE_PER_ADDRESS {
                return Err(());
            }
            *waiting += 1;
        }
        let jobs = self.sender();
        let sent = jobs
            .ok_or(())
            .and_then(|jobs| jobs.try_send((job, done)).map_err(|_| ()));
        if sent.is_err() {
            self.shared.table().leave(address);
        }
        sent
    }

    fn sender(&self) -> Option<SyncSender<(Job, Done)>> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.is_none() {
            let (sender, receiver) = sync_channel(QUEUE);
            let receiver = Arc::new(Mutex::new(receiver));
            let client = Client::new(TIME);
            for _ in 0..THREADS {
                let (shared, receiver, client) =
                    (self.shared.clone(), receiver.clone(), client.clone());
                // It ends with the sender, after the question under way, and nobody waits for that.
                let thread = std::thread::Builder::new().name("sfu-webhook".into());
                thread.spawn(move || shared.work(&receiver, &client)).ok()?;
            }
            *jobs = Some(sender);
        }
        jobs.clone()
    }
}

fn kept(verdict: Verdict) -> Duration {
    match verdict {
        Verdict::Yes => YES,
        Verdict::No => NO,
        Verdict::Silent | Verdict::Unknown => SILENCE,
    }
}

impl Table {
    fn keep(&mut self, mac: Mac, known: Known, now: Instant) {
        self.verdicts.insert(mac, known);
        self.order.push_back((mac, now));
        while self.order.len() > KEPT {
            let Some((oldest, at)) = self.order.pop_front() else {
                return;
            };
            if self.verdicts.get(&oldest).is_some_and(|k| k.at <= at) {
                self.verdicts.remove(&oldest);
            }
        }
    }

    fn leave(&mut self, address: IpAddr) {
        if let Some(waiting) = self.waiting.get_mut(&address) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                self.waiting.remove(&address);
            }
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mac(&self, webhook: &Webhook, asker: &Asker, want: &Want) -> Mac {
        let mut context = hmac::Context::with_key(&self.key);
        let address = asker.address.map(|a| a.to_string()).unwrap_or_default();
        let convention = format!("{:?}", webhook.convention);
        for part in [
            &webhook.address.0,
            &convention,
            &address,
            asker.protocol,
            &asker.user,
            &asker.password,
            &asker.token,
            want.action.name(),
            want.stream.as_deref().unwrap_or(""),
        ] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    fn work(&self, jobs: &Mutex<Receiver<(Job, Done)>>, client: &Client) {
        loop {
            let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((job, done)) = next else {
                return;
            };
            // Who has waited for as long as an answer may take, or for one, is not asked for any more: a server that hangs makes
            // nobody wait for those before him.
            let mut silent = job.since.elapsed() >= TIME;
            for want in &job.wants {
                let verdict = match silent {
                    true => Verdict::Silent,
                    false => put(client, &job.webhook, &job.asker, want),
                };
                silent |= verdict == Verdict::Silent;
                let mac = self.mac(&job.webhook, &job.asker, want);
                let now = Instant::now();
                let mut table = self.table();
                let before = table.verdicts.get(&mac).and_then(|known| known.yes);
                let known = Known {
                    verdict,
                    at: now,
                    yes: if verdict == Verdict::Yes {
                        Some(now)
                    } else {
                        before
                    },
                    pending: false,
                };
                table.keep(mac, known, now);
            }
            let address = job.asker.address.unwrap_or(IpAddr::from([0; 4]));
            self.table().leave(network_of(address));
            done();
        }
    }
}

/// Asks once.
fn put(client: &Client, webhook: &Webhook, asker: &Asker, want: &Want) -> Verdict {
    let (content_type, body) = match webhook.convention {
        Convention::MediaMtx => ("application/json", mediamtx(asker, want)),
        Convention::Nginx => ("application/x-www-form-urlencoded", nginx(asker, want)),
    };
    let fields = [("Content-Type", content_type)];
    match client.post(&webhook.address.0, &fields, &body) {
        Ok(200..=299) => Verdict::Yes,
        Ok(400..=499) => Verdict::No,
        // It is not well, or says to ask elsewhere, which nobody is followed to: it has not decided.
        Ok(_) | Err(_) => Verdict::Silent,
    }
}

/// MediaMTX's `authHTTPAddress`.
fn mediamtx(asker: &Asker, want: &Want) -> String {
    let action = match want.action {
        Action::Publish | Action::Takeover => "publish",
        Action::Play => "read",
        Action::Record => "playback",
        Action::Api => "api",
        Action::Metrics => "metrics",
    };
    let query = match want.action {
        Action::Takeover => "takeover=1",
        _ => "",
    };
    let ip = asker.address.map(|a| a.to_canonical().to_string());
    let body = json!({
        "user": asker.user,
        "password": asker.password,
        "token": asker.token,
        "ip": ip.unwrap_or_default(),
        "action": action,
        "path": want.stream.as_deref().unwrap_or(""),
        "protocol": asker.protocol,
        "query": query,
    });
    body.to_string()
}

/// nginx-rtmp's `on_publish` and `on_play`.
fn nginx(asker: &Asker, want: &Want) -> String {
    let call = match want.action {
        Action::Publish => "publish",
        Action::Play => "play",
        other => other.name(),
    };
    let stream = want.stream.as_deref().unwrap_or("");
    let (app, name) = stream.rsplit_once('/').unwrap_or(("live", stream));
    let ip = asker.address.map(|a| a.to_canonical().to_string());
    let mut form = String::new();
    for (key, value) in [
        ("call", call),
        ("app", app),
        ("name", name),
        ("addr", ip.as_deref().unwrap_or("")),
        ("protocol", asker.protocol),
        ("user", &asker.user),
        ("pass", &asker.password),
        ("token", &asker.token),
    ] {
        if value.is_empty() && matches!(key, "user" | "pass" | "token") {
            continue;
        }
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(key);
        form.push('=');
        encode(&mut form, value);
    }
    form
}

/// As the URL standard writes forms.
fn encode(form: &mut String, value: &str) {
    use std::fmt::Write;
    for octet in value.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                form.push(octet.into());
            }
            b' ' => form.push('+'),
            _ => {
                let _ = write!(form, "%{octet:02X}");
            }
        }
    }
}

/// What was shown, as it is told on; `None` where it is too long to be anything, or says nothing to who has no nonce.
pub(crate) fn asker(
    credential: Option<crate::Credential<'_>>,
    address: Option<IpAddr>,
    protocol: &'static str,
) -> Option<Asker> {
    use crate::Credential::{Basic, Bearer, Digest};
    let (user, password, token) = match credential {
        None => ("", "", ""),
        Some(Bearer(token)) => ("", "", token),
        Some(Basic { user, password }) => (user, password, ""),
        Some(Digest(_)) => return None,
    };
    let fits = [user, password, token]
        .iter()
        .all(|part| part.len() <= PART_MAX);
    fits.then(|| Asker {
        address,
        protocol,
        user: user.to_owned(),
        password: password.to_owned(),
        token: token.to_owned(),
    })
}
