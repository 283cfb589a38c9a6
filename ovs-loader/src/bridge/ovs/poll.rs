//! Asks ovs-vswitchd for what it tells nobody: its flows and its FDBs.
//!
//! Each bridge is asked for its flows and the counters of its FDB in turn, which costs little; the FDB
//! itself only where its counters are others than before, and now and then for what they don't show.
//! The more an answer costs, the longer until the next question.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ovs_ebpf_common::Reason;
use ovs_ebpf_common::abi::EVENT_INTERVAL;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::control::{self, Control};
use super::join::Answers;
use super::openflow::{self, Configs, OpenFlow};
use super::text;
use super::value::Uuid;
use super::{Heard, Told};
use crate::bridge::model::Why;

/// How long from one question to the next, unless the answers cost more: a rule or a flush takes
/// effect within a second, with room for a machine that is busy.
const INTERVAL: Duration = Duration::from_millis(300);

/// The longest that costs can make it, where nothing is accelerated.
const LONGEST: Duration = Duration::from_secs(10);

/// The longest where something is: what stops the bypass takes effect within a second, on a machine
/// that is slow to answer too.
const LONGEST_FAST: Duration = Duration::from_millis(600);

/// Of so much time one part may pass with asking.
const SHARE: u32 = 20;

/// How long a bridge has for an answer on its OpenFlow socket. Without ovsdb-server there is none: it
/// then takes no change either.
const LIMIT: Duration = Duration::from_millis(100);

/// How often the FDB is asked for although its counters have not changed: a fixed entry may have been
/// replaced by another one.
const WHOLE: Duration = Duration::from_secs(10);

/// When a station has just been seen, ovs-vswitchd has learned it so much later.
const LEARNED: Duration = Duration::from_nanos(EVENT_INTERVAL);

/// A bridge to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Its name.
    pub(super) name: String,
    /// How many times what was told has become void: then all is told again.
    pub(super) voided: u64,
}

/// What became of a question.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error(transparent)]
    Text(#[from] text::Unknown),
    #[error(transparent)]
    OpenFlow(#[from] openflow::Error),
    #[error("ovs-vswitchd's OpenFlow socket of {0} does not answer: does ovsdb-server run?")]
    OpenFlowLate(String),
}

impl Failed {
    /// Nobody is there for a while maybe, or knows the bridge: an ovs-vswitchd that has just started
    /// has not yet read of it, while the datapath goes on. Else there is an answer, which is not
    /// understood.
    fn is_absence(&self) -> bool {
        match self {
            Self::Control(_) | Self::OpenFlowLate(_) => true,
            Self::OpenFlow(error) => matches!(error, openflow::Error::Socket { .. }),
            Self::Text(_) => false,
        }
    }
}

/// A bridge that is asked for.
struct Asked {
    subject: Subject,
    /// When next.
    due: Instant,
    /// No sooner than this, whatever happens: what the last answer cost must be worth it.
    earliest: Instant,
    /// When the FDB at the latest.
    whole: Instant,
    /// The connection for what only OpenFlow tells.
    openflow: Option<OpenFlow>,
    /// The counters of the FDB as of the last time.
    counters: String,
    /// What was last told.
    told: Option<Answers>,
    /// Since when there are no answers.
    failing: Option<Instant>,
}

impl Asked {
    fn new(subject: Subject, now: Instant) -> Self {
        let counters = String::new();
        Self {
            subject,
            due: now,
            earliest: now,
            whole: now,
            openflow: None,
            counters,
            told: None,
            failing: None,
        }
    }
}

/// Asks for bridges.
pub(super) struct Poll {
    rundir: PathBuf,
    instance: usize,
    /// How long the last answers hold when there are no new ones.
    patience: Duration,
    told: Sender<Told>,
    control: Option<Control>,
    bridges: BTreeMap<Uuid, Asked>,
}

impl Poll {
    pub(super) fn new(
        rundir: PathBuf,
        instance: usize,
        patience: Duration,
        told: Sender<Told>,
    ) -> Self {
        Self { rundir, instance, patience, told, control: None, bridges: BTreeMap::new() }
    }

    /// Asks until nobody listens any more. `subjects` are the bridges there are, `hints` those where a
    /// station has just been seen that the FDB does not have, or elsewhere.
    pub(super) async fn run(
        mut self,
        mut subjects: watch::Receiver<BTreeMap<Uuid, Subject>>,
        mut hints: Receiver<Uuid>,
    ) {
        loop {
            let next = self.bridges.iter().min_by_key(|(_, asked)| asked.due);
            let next = next.map(|(bridge, asked)| (bridge.clone(), asked.due));
            let due = next.as_ref().map(|(_, due)| *due);
            tokio::select! {
                biased;
                changed = subjects.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let subjects = subjects.borrow_and_update().clone();
                    self.bridges.retain(|bridge, asked| subjects.get(bridge) == Some(&asked.subject));
                    for (bridge, subject) in subjects {
                        let asked = || Asked::new(subject, Instant::now());
                        self.bridges.entry(bridge).or_insert_with(asked);
                    }
                }
                Some(bridge) = hints.recv() => {
                    if let Some(asked) = self.bridges.get_mut(&bridge) {
                        let soon = (Instant::now() + LEARNED).max(asked.earliest);
                        asked.due = asked.due.min(soon);
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((bridge, _)) = next && !self.turn(bridge).await {
                        return;
                    }
                }
            }
        }
    }

    /// Asks for one bridge and tells what is new. Gives whether anybody listens.
    async fn turn(&mut self, bridge: Uuid) -> bool {
        let start = Instant::now();
        let answers = self.ask(&bridge).await;
        let cost = start.elapsed();
        let answers = match answers {
            Ok(answers) => self.ask_openflow(&bridge, answers).await,
            Err(error) => Err(error),
        };
        let Some(asked) = self.bridges.get_mut(&bridge) else { return true };
        let now = Instant::now();
        let is_fast = asked.told.as_ref().is_some_and(|told| told.against.is_empty());
        let pause = pause(cost, is_fast);
        asked.earliest = now + pause;
        asked.due = now + pause.max(INTERVAL);
        let answers = match answers {
            Ok(answers) => {
                asked.failing = None;
                answers
            }
            Err(error) => {
                if error.is_absence() {
                    self.control = None;
                }
                asked.openflow = None;
                let since = *asked.failing.get_or_insert(now);
                asked.counters.clear();
                // The kernel's datapath goes on without ovs-vswitchd, but what was never known is no
                // ground to go on.
                let holds = error.is_absence() && asked.told.is_some();
                if holds && since + self.patience > now {
                    return true;
                }
                let against = vec![Why::new(Reason::OvsUnreachable, error.to_string())];
                Answers { against, ..Answers::default() }
            }
        };
        if asked.told.as_ref() == Some(&answers) {
            return true;
        }
        asked.told = Some(answers.clone());
        let voided = asked.subject.voided;
        let heard = Heard::Bridge { bridge, voided, answers };
        self.told.send(Told { instance: self.instance, heard }).await.is_ok()
    }

    async fn ask(&mut self, bridge: &Uuid) -> Result<Answers, Failed> {
        let Some(asked) = self.bridges.get_mut(bridge) else { return Ok(Answers::default()) };
        let control = match &mut self.control {
            Some(control) => control,
            none => none.insert(Control::open(&self.rundir).await?),
        };
        let flows = control.ask("bridge/dump-flows", &asked.subject.name).await?;
        let against = text::other_flows(&flows)?.into_iter().collect();
        // The counters first: what changes after that shows the next time.
        let counters = control.ask("fdb/stats-show", &asked.subject.name).await?;
        let now = Instant::now();
        let stations = match &asked.told {
            Some(told) if counters == asked.counters && now < asked.whole => told.stations.clone(),
            _ => {
                let stations =
                    text::stations(&control.ask("fdb/show", &asked.subject.name).await?)?;
                asked.whole = now + WHOLE;
                asked.counters = counters;
                Arc::new(stations)
            }
        };
        Ok(Answers { against, stations, configs: Configs::default() })
    }

    /// Adds to the answers what OpenFlow has set; what it had where it is late.
    async fn ask_openflow(
        &mut self,
        bridge: &Uuid,
        mut answers: Answers,
    ) -> Result<Answers, Failed> {
        let Some(asked) = self.bridges.get_mut(bridge) else { return Ok(answers) };
        let socket = self.rundir.join(format!("{}.mgmt", asked.subject.name));
        let configs = timeout(LIMIT, async {
            let openflow = match &mut asked.openflow {
                Some(openflow) => openflow,
                none => none.insert(OpenFlow::open(&socket).await?),
            };
            openflow.configs().await
        });
        answers.configs = match (configs.await, &asked.told) {
            (Ok(configs), _) => configs?,
            (Err(_), Some(told)) => told.configs.clone(),
            (Err(_), None) => return Err(Failed::OpenFlowLate(asked.subject.name.clone())),
        };
        Ok(answers)
    }
}

/// How long a bridge is left alone after an answer that took `cost`.
fn pause(cost: Duration, is_fast: bool) -> Duration {
    (cost * SHARE).min(if is_fast { LONGEST_FAST } else { LONGEST })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_takes_a_twentieth_of_the_time_unless_a_second_would_pass_on_the_fast_path() {
        let milliseconds = Duration::from_millis;
        assert_eq!(pause(milliseconds(20), true), milliseconds(400));
        assert_eq!(pause(milliseconds(20), false), milliseconds(400));
        // A slow answer, the pause, and another slow answer have to fit.
        assert!(milliseconds(200) + pause(milliseconds(200), true) < milliseconds(1000));
        assert_eq!(pause(milliseconds(200), false), milliseconds(4000));
        assert_eq!(pause(milliseconds(2000), false), milliseconds(10_000));
    }
}
