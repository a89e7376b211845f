//! What AUTO does when: a state machine over the candidates, without threads or clocks.
//!
//! Candidates are numbered in order of preference. At most one serves. A helper may serve while the preferred one
//! compiles; whatever serves gives way to a better candidate that has compiled and proved itself, and to the next one
//! when it fails.

use std::time::Duration;

/// How often a candidate may fail after it has served; then it is left out for good.
pub(crate) const MOST_FAILURES: u8 = 3;
/// Rest after the first failure; it doubles with each further one.
const FIRST_REST: Duration = Duration::from_millis(100);

/// What a candidate is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    /// Nothing; it may be asked to compile.
    Waiting,
    Compiling,
    /// Compiled; its results and its speed are looked at.
    Warming,
    /// Compiled, and serves if those before it fail.
    Standby,
    Serving,
    /// It failed and is left alone for a while.
    Resting,
    /// It is not used any more.
    Out,
}

/// Something that happened to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Start,
    Compiled(usize),
    /// Compiling failed; compiling again at once would not help.
    CompileFailed(usize),
    /// Compiling failed for a reason that holds for every device.
    Refused(usize),
    /// It is fit to serve.
    Warmed(usize),
    /// It works, but is wrong or not faster than what serves; or it failed while warming.
    Rejected(usize),
    /// An inference failed on it.
    Failed(usize),
    /// Its rest is over.
    Rested(usize),
    /// No request holds what used to serve.
    Drained,
    /// The model keeps state between inferences, so requests must not move.
    Stateful,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Compile, in the background when something serves or is about to.
    Compile {
        candidate: usize,
        background: bool,
    },
    Warm(usize),
    /// Let requests move to it.
    Serve(usize),
    /// Drop what was compiled.
    Discard(usize),
    /// Come back with [`Event::Rested`].
    Rest(usize, Duration),
}

/// The state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    standing: Vec<Standing>,
    failures: Vec<u8>,
    has_served: Vec<bool>,
    helper: Option<usize>,
    fall_back: bool,
    stateful: bool,
    draining: u8,
}

impl Machine {
    /// `helper` compiles beside the first candidate; with `fall_back` a candidate that fails is replaced.
    pub(crate) fn new(candidates: usize, helper: Option<usize>, fall_back: bool) -> Self {
        Self {
            standing: vec![Standing::Waiting; candidates],
            failures: vec![0; candidates],
            has_served: vec![false; candidates],
            helper: helper.filter(|h| *h > 0 && *h < candidates),
            fall_back,
            stateful: false,
            draining: 0,
        }
    }

    /// The candidate that serves.
    pub(crate) fn serving(&self) -> Option<usize> {
        self.standing.iter().position(|s| *s == Standing::Serving)
    }

    /// Whether a better candidate than the one that serves is on its way.
    pub(crate) fn is_waiting_for_better(&self) -> bool {
        self.serving().is_some_and(|s| self.standing[..s].iter().any(|s| s.is_underway()))
    }

    /// Whether a candidate compiles or warms.
    pub(crate) fn is_underway(&self, candidate: usize) -> bool {
        self.standing[candidate].is_underway()
    }

    /// Whether nothing serves and nothing will.
    pub(crate) fn has_given_up(&self) -> bool {
        self.standing.iter().all(|s| *s == Standing::Out)
    }

    /// The name of the state.
    pub(crate) fn phase(&self) -> &'static str {
        match self.serving() {
            None if self.has_given_up() => "FAILED",
            None if self.has_served.contains(&true) => "FAILED_OVER",
            None => "COMPILING",
            Some(s) if self.standing[..s].contains(&Standing::Warming) => "WARMING",
            Some(s) if self.standing[..s].iter().any(|s| s.is_underway()) => "SERVING_FALLBACK",
            Some(_) if self.draining > 0 => "DRAINING",
            Some(0) => "SWITCHED",
            Some(_) => "FALLBACK_ONLY",
        }
    }

    /// Takes an event in and says what to do, in order.
    pub(crate) fn on(&mut self, event: Event) -> Vec<Action> {
        let mut todo = Vec::new();
        match event {
            Event::Start => {
                self.compile(0, self.helper.is_some(), &mut todo);
                if let Some(helper) = self.helper {
                    self.compile(helper, false, &mut todo);
                }
            }
            Event::Stateful => self.stateful = true,
            Event::Compiled(i) => {
                self.compiled(i, &mut todo);
                self.advance(&mut todo);
            }
            Event::CompileFailed(i) if self.standing[i].is_underway() => {
                self.leave(i, &mut todo);
                self.advance(&mut todo);
            }
            Event::Refused(i) if self.standing[i].is_underway() => {
                if self.serving().is_none() && !self.has_served.contains(&true) {
                    self.standing.fill(Standing::Out);
                } else {
                    self.standing[i] = Standing::Out;
                    self.advance(&mut todo);
                }
            }
            Event::Warmed(i) if self.standing[i] == Standing::Warming => {
                self.serve(i, &mut todo);
                self.advance(&mut todo);
            }
            Event::Rejected(i) if self.standing[i] == Standing::Warming => {
                self.standing[i] = Standing::Out;
                todo.push(Action::Discard(i));
                self.advance(&mut todo);
            }
            Event::Failed(i) if self.standing[i] == Standing::Serving => {
                let others = self
                    .standing
                    .iter()
                    .any(|s| s.is_underway() || matches!(s, Standing::Waiting | Standing::Standby));
                if self.fall_back && !self.stateful && others {
                    self.leave(i, &mut todo);
                    self.advance(&mut todo);
                }
            }
            Event::Rested(i) if self.standing[i] == Standing::Resting => {
                self.standing[i] = Standing::Waiting;
                self.advance(&mut todo);
            }
            Event::Drained => self.draining = self.draining.saturating_sub(1),
            Event::CompileFailed(_)
            | Event::Refused(_)
            | Event::Warmed(_)
            | Event::Rejected(_)
            | Event::Failed(_)
            | Event::Rested(_) => {}
        }
        todo
    }

    fn compiled(&mut self, i: usize, todo: &mut Vec<Action>) {
        if self.standing[i] != Standing::Compiling {
            todo.push(Action::Discard(i));
            return;
        }
        match self.serving() {
            None if self.stateful && self.standing[..i].iter().any(|s| s.is_underway()) => {
                self.standing[i] = Standing::Standby;
            }
            None => self.serve(i, todo),
            Some(s) if i < s && !self.stateful => {
                self.standing[i] = Standing::Warming;
                todo.push(Action::Warm(i));
            }
            Some(_) => {
                self.standing[i] = Standing::Waiting;
                todo.push(Action::Discard(i));
            }
        }
    }

    fn compile(&mut self, candidate: usize, background: bool, todo: &mut Vec<Action>) {
        self.standing[candidate] = Standing::Compiling;
        todo.push(Action::Compile { candidate, background });
    }

    fn serve(&mut self, i: usize, todo: &mut Vec<Action>) {
        if let Some(s) = self.serving() {
            self.standing[s] = Standing::Waiting;
            self.draining = self.draining.saturating_add(1);
        }
        self.standing[i] = Standing::Serving;
        self.has_served[i] = true;
        todo.push(Action::Serve(i));
    }

    /// After a failure: a rest for what has served before, the end for what has not or failed too often.
    fn leave(&mut self, i: usize, todo: &mut Vec<Action>) {
        self.failures[i] = self.failures[i].saturating_add(1);
        if self.standing[i] == Standing::Serving {
            self.draining = self.draining.saturating_add(1);
        }
        if !self.has_served[i] || self.failures[i] >= MOST_FAILURES {
            self.standing[i] = Standing::Out;
            return;
        }
        self.standing[i] = Standing::Resting;
        todo.push(Action::Rest(i, FIRST_REST * (1 << (self.failures[i] - 1))));
    }

    /// Starts what should be on its way and is not.
    fn advance(&mut self, todo: &mut Vec<Action>) {
        let end = match self.serving() {
            Some(_) if self.stateful => return,
            Some(s) => s,
            None => self.standing.len(),
        };
        let first_standby = self.standing.iter().position(|s| *s == Standing::Standby);
        if self.standing[..end].iter().any(|s| s.is_underway()) {
            return;
        }
        if let (None, Some(i)) = (self.serving(), first_standby) {
            self.serve(i, todo);
        } else if let Some(i) = self.standing[..end].iter().position(|s| *s == Standing::Waiting) {
            self.compile(i, self.serving().is_some(), todo);
        }
    }
}

impl Standing {
    fn is_underway(self) -> bool {
        matches!(self, Self::Compiling | Self::Warming)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    /// Everything that may happen in a state.
    fn events(machine: &Machine) -> Vec<Event> {
        let mut possible = Vec::new();
        for (i, standing) in machine.standing.iter().enumerate() {
            match standing {
                Standing::Compiling => possible.extend([
                    Event::Compiled(i),
                    Event::CompileFailed(i),
                    Event::Refused(i),
                ]),
                Standing::Warming => {
                    possible.extend([
                        Event::Warmed(i),
                        Event::Rejected(i),
                        Event::CompileFailed(i),
                    ]);
                }
                Standing::Serving => possible.push(Event::Failed(i)),
                Standing::Resting => possible.push(Event::Rested(i)),
                Standing::Waiting | Standing::Standby | Standing::Out => {
                    // Too late: a report about something that was given up.
                    possible.extend([Event::Compiled(i), Event::Warmed(i), Event::Failed(i)]);
                }
            }
        }
        if machine.draining > 0 {
            possible.push(Event::Drained);
        }
        if !machine.stateful && machine.serving().is_none() {
            possible.push(Event::Stateful);
        }
        possible
    }

    fn check(before: &Machine, event: Event, after: &Machine, todo: &[Action]) {
        let context = || format!("{before:?}\n{event:?}\n{after:?}\n{todo:?}");
        let serving = after.standing.iter().filter(|s| **s == Standing::Serving).count();
        assert!(serving <= 1, "{}", context());
        let alive = |s: &Standing| s.is_underway() || matches!(s, Standing::Resting);
        assert!(
            serving == 1 || after.has_given_up() || after.standing.iter().any(alive),
            "nothing serves and nothing is on its way: {}",
            context()
        );
        for action in todo {
            match *action {
                Action::Serve(i) => assert_eq!(after.serving(), Some(i), "{}", context()),
                Action::Compile { candidate, background } => {
                    assert_eq!(after.standing[candidate], Standing::Compiling, "{}", context());
                    assert_eq!(background, after.serving().is_some(), "{}", context());
                }
                Action::Warm(i) => {
                    assert_eq!(after.standing[i], Standing::Warming, "{}", context());
                }
                Action::Discard(i) => {
                    assert_ne!(after.standing[i], Standing::Serving, "{}", context());
                }
                Action::Rest(i, _) => {
                    assert_eq!(after.standing[i], Standing::Resting, "{}", context());
                }
            }
        }
        let moved = before.serving().is_some() && after.serving() != before.serving();
        if after.stateful && moved {
            assert_eq!(Some(event), before.serving().map(Event::Failed), "{}", context());
        }
        if !before.fall_back && moved {
            assert!(
                after.serving() < before.serving(),
                "only a better one takes over: {}",
                context()
            );
        }
    }

    #[test]
    fn every_reachable_state_serves_or_is_on_its_way() {
        let mut seen = HashSet::new();
        for candidates in 1..=3 {
            for helper in 0..candidates {
                for fall_back in [false, true] {
                    let mut start = Machine::new(candidates, Some(helper), fall_back);
                    start.on(Event::Start);
                    let mut queue = VecDeque::from([start]);
                    while let Some(machine) = queue.pop_front() {
                        if machine.draining > 2 || !seen.insert(machine.clone()) {
                            continue;
                        }
                        for event in events(&machine) {
                            let mut next = machine.clone();
                            let todo = next.on(event);
                            check(&machine, event, &next, &todo);
                            queue.push_back(next);
                        }
                    }
                }
            }
        }
        assert!(seen.len() > 500, "{} states", seen.len());
    }

    #[test]
    fn the_helper_serves_until_the_first_has_proved_itself() {
        let mut m = Machine::new(2, Some(1), true);
        let compile = |candidate, background| Action::Compile { candidate, background };
        assert_eq!(m.on(Event::Start), [compile(0, true), compile(1, false)]);
        assert_eq!(m.phase(), "COMPILING");
        assert_eq!(m.on(Event::Compiled(1)), [Action::Serve(1)]);
        assert_eq!(m.phase(), "SERVING_FALLBACK");
        assert_eq!(m.on(Event::Compiled(0)), [Action::Warm(0)]);
        assert_eq!(m.phase(), "WARMING");
        assert_eq!(m.on(Event::Warmed(0)), [Action::Serve(0)]);
        assert_eq!(m.phase(), "DRAINING");
        m.on(Event::Drained);
        assert_eq!(m.phase(), "SWITCHED");
        let rest = Action::Rest(0, FIRST_REST);
        assert_eq!(m.on(Event::Failed(0)), [rest, compile(1, false)]);
        assert_eq!(m.phase(), "FAILED_OVER");
        assert_eq!(m.on(Event::Compiled(1)), [Action::Serve(1)]);
        assert_eq!(m.on(Event::Rested(0)), [compile(0, true)]);
    }

    #[test]
    fn a_candidate_that_keeps_failing_is_left_out() {
        let mut m = Machine::new(2, None, true);
        m.on(Event::Start);
        m.on(Event::Compiled(0));
        for failure in 1..=MOST_FAILURES {
            m.on(Event::Failed(0));
            m.on(Event::Compiled(1));
            assert_eq!(m.standing[0] == Standing::Out, failure == MOST_FAILURES);
            m.on(Event::Rested(0));
            m.on(Event::Compiled(0));
            m.on(Event::Warmed(0));
        }
        assert_eq!((m.serving(), m.phase()), (Some(1), "DRAINING"));
    }

    #[test]
    fn a_lone_candidate_that_fails_goes_on_serving() {
        let mut m = Machine::new(1, None, true);
        m.on(Event::Start);
        m.on(Event::Compiled(0));
        assert_eq!(m.on(Event::Failed(0)), []);
        assert_eq!(m.serving(), Some(0));
    }

    #[test]
    fn state_keeps_requests_where_they_are() {
        let mut m = Machine::new(2, Some(1), true);
        m.on(Event::Start);
        m.on(Event::Stateful);
        assert_eq!(m.on(Event::Compiled(1)), []);
        assert_eq!(m.on(Event::Compiled(0)), [Action::Serve(0)]);
        assert_eq!(m.on(Event::Failed(0)), []);
        let mut m = Machine::new(2, Some(1), true);
        m.on(Event::Start);
        m.on(Event::Stateful);
        m.on(Event::Compiled(1));
        assert_eq!(m.on(Event::CompileFailed(0)), [Action::Serve(1)]);
    }
}
