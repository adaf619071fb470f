//! Pure: which Deployments there are in which waves, and whether these come one after the other.

use super::super::operator::AT_ONCE;

/// The waves in their order, each with its Deployments. The value of the label `tier` is the name of the wave.
pub(super) const WAVES: [(&str, &[&str]); 3] = [
    ("data", &["ledger", "stock"]),
    ("api", &["cart", "orders", "prices"]),
    ("web", &["admin", "front"]),
];
/// Characters per Deployment on the screen.
const WIDTH: usize = 9;

/// How far a Deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its restart has not begun.
    Old,
    /// Its restart has begun.
    Restarting,
    /// All its pods are new and ready.
    New,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Order(Vec<State>);

impl Order {
    /// The Deployments are as `state_of` tells, all at one moment. Returns a line about them if it is another than the last, and fails when
    /// they are not as the waves and the limit want it.
    pub(super) fn see(
        &mut self,
        state_of: impl Fn(&str) -> State,
    ) -> Result<Option<String>, String> {
        let states: Vec<_> = names().map(&state_of).collect();
        let restarting = states.iter().filter(|state| **state == State::Restarting);
        let restarting = restarting.count();
        if restarting > AT_ONCE {
            return Err(format!("{restarting} Deployments restart at once"));
        }
        let is = |name: &&str, state| state_of(name) == state;
        for (index, (wave, deployments)) in WAVES.iter().enumerate() {
            let begun = deployments.iter().any(|name| !is(name, State::Old));
            let mut before = WAVES.iter().take(index).flat_map(|(_, earlier)| *earlier);
            if let Some(late) = before.find(|name| begun && !is(name, State::New)) {
                return Err(format!("the wave {wave} has begun before {late} was done"));
            }
        }
        if self.0 == states {
            return Ok(None);
        }
        let cells = states.iter().map(|state| match state {
            State::Old => "-",
            State::Restarting => "restarts",
            State::New => "new",
        });
        let line = row(cells);
        self.0 = states;
        Ok(Some(line))
    }

    /// Whether all are done.
    pub(super) fn is_done(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|state| *state == State::New)
    }
}

/// The names of all Deployments.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    WAVES.iter().flat_map(|(_, names)| *names).copied()
}

/// The waves, each above the first of its Deployments, and these.
pub(super) fn head() -> [String; 2] {
    let waves = WAVES
        .iter()
        .map(|(wave, names)| format!("{wave:<width$}", width = WIDTH * names.len()));
    [
        waves.collect::<String>().trim_end().to_owned(),
        row(names()),
    ]
}

fn row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let line: String = cells.map(|cell| format!("{cell:<WIDTH$}")).collect();
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(order: &mut Order, restarting: &[&str], new: &[&str]) -> Result<Option<String>, String> {
        order.see(
            |name| match (restarting.contains(&name), new.contains(&name)) {
                (true, _) => State::Restarting,
                (_, true) => State::New,
                (_, _) => State::Old,
            },
        )
    }

    #[test]
    fn each_change_is_one_line() {
        let mut order = Order::default();
        let line = see(&mut order, &[], &[]).unwrap().unwrap();
        assert!(line.starts_with("-        -        -"), "{line}");
        let line = see(&mut order, &["ledger", "stock"], &[]).unwrap();
        assert!(line.unwrap().starts_with("restarts restarts -"));
        assert_eq!(see(&mut order, &["ledger", "stock"], &[]), Ok(None));
        assert!(!order.is_done());
        let all: Vec<_> = names().collect();
        assert!(see(&mut order, &[], &all).unwrap().is_some());
        assert!(order.is_done());
    }

    #[test]
    fn a_wave_that_comes_too_early_and_too_many_at_once_are_wrong() {
        let see = |restarting: &[&str], new: &[&str]| see(&mut Order::default(), restarting, new);
        let data = ["ledger", "stock"];
        assert!(see(&["cart", "orders"], &data).is_ok());
        assert!(see(&["cart"], &["ledger"]).is_err());
        assert!(see(&[], &["ledger", "stock", "front"]).is_err());
        assert!(see(&["cart", "orders", "prices"], &data).is_err());
    }
}
