//! Pure: the figures of the benchmark of leases as text.

use std::{fmt, time::Duration};

use lockstep_testbed::{ApiRequest, VaultRequest};

use super::{
    super::figures::{
        Cost, Figure, as_f64, cpu, exactly, figure, kinds, memory, ratio, table, target, writes,
    },
    LeasesArguments,
    census::Census,
    least,
    load::Lot,
};

/// Most requests to Vault of what the theoretical minimum is.
const MOST_RATIO: f64 = 1.3;

/// What happened while nothing was done.
pub(super) struct Rest {
    pub(super) cost: Cost,
    pub(super) census: Census,
    /// Restarts of workloads that use leases that last, and of those that use the others.
    pub(super) restarts: [usize; 2],
}

/// What one restart of the operator did.
pub(super) struct Restart {
    pub(super) cost: Cost,
    /// How long the operator took to end.
    pub(super) ending: Duration,
    /// How long it was until the next one was ready, in all.
    pub(super) away: Duration,
    /// Leases that were not there before.
    pub(super) created: usize,
    /// Leases that are not there any more.
    pub(super) lost: usize,
    /// Restarts of workloads.
    pub(super) restarts: usize,
}

/// The figures of one run.
pub(super) struct Report {
    pub(super) arguments: LeasesArguments,
    /// How many objects have leases that last, and how many have others.
    pub(super) lots: [usize; 2],
    pub(super) first: Cost,
    pub(super) rest: Rest,
    /// How long it was until no lease of the objects was left that were deleted.
    pub(super) deleted: Duration,
    pub(super) restart: Restart,
}

/// What a request to Vault is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Issue,
    Renewal,
    Revocation,
    Lookup,
    /// A login, or a renewal or lookup of a token.
    Token,
    Other,
}

impl About {
    fn of(request: &VaultRequest) -> Self {
        match request.path.as_str() {
            "sys/leases/renew" => Self::Renewal,
            "sys/leases/revoke" => Self::Revocation,
            "sys/leases/lookup" => Self::Lookup,
            path if path.starts_with("database/creds/") => Self::Issue,
            path if path.starts_with("auth/") => Self::Token,
            _ => Self::Other,
        }
    }
}

impl Cost {
    fn asked(&self, about: About) -> usize {
        let asked = self.vault.iter().map(About::of);
        asked.filter(|found| *found == about).count()
    }

    /// Writes about the objects with such leases, of them and of what is called like them.
    fn writes_of(&self, lot: Lot) -> usize {
        let of = |request: &&ApiRequest| request.name.starts_with(lot.role());
        writes(&self.api).filter(of).count()
    }

    fn writes_per_replacement(&self) -> f64 {
        let replaced = self.asked(About::Issue).max(1);
        as_f64(self.writes_of(Lot::Turning)) / as_f64(replaced)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeasesArguments { objects, ttl, .. } = self.arguments;
        let [_, turning] = self.lots;
        let seconds = self.rest.cost.wall.as_secs();
        writeln!(
            f,
            "\n{objects} leases of {ttl} s come, {turning} of which live for {} s at most",
            Lot::Turning.most(ttl)
        )?;
        section(f, &self.first_figures(), &self.first)?;
        writeln!(f, "{seconds} s at rest")?;
        section(f, &self.rest_figures(), &self.rest.cost)?;
        writeln!(f, "one restart of the operator, {turning} objects are gone")?;
        section(f, &self.restart_figures(), &self.restart.cost)
    }
}

fn section(f: &mut fmt::Formatter<'_>, figures: &[Figure], cost: &Cost) -> fmt::Result {
    table(f, figures)?;
    writeln!(f, "  {}", kinds(&cost.api, &cost.vault))
}

impl Report {
    fn objects(&self) -> usize {
        self.arguments.objects.into()
    }

    fn first_figures(&self) -> Vec<Figure> {
        let cost = &self.first;
        let objects = self.objects();
        let per_object = |count| format!("{:.2}", as_f64(count) / as_f64(objects));
        let issued = cost.asked(About::Issue);
        vec![
            figure("Vault requests per object", per_object(cost.vault.len())),
            exactly("  to issue a lease, in all", issued, objects),
            figure(
                "apiserver writes per object",
                per_object(writes(&cost.api).count()),
            ),
            cpu(cost),
            memory(cost),
        ]
    }

    fn rest_figures(&self) -> Vec<Figure> {
        let cost = &self.rest.cost;
        let mut figures = self.rate_figures();
        figures.extend(self.alive_figures());
        let [lasting, turning] = self.rest.restarts;
        figures.extend([
            figure("leases replaced", cost.asked(About::Issue).to_string()),
            figure("  restarts of workloads for that", turning.to_string()),
            figure(
                "  apiserver writes for each",
                format!("{:.1}", cost.writes_per_replacement()),
            ),
            exactly("other restarts of workloads", lasting, 0),
            exactly("other apiserver writes", cost.writes_of(Lot::Lasting), 0),
            cpu(cost),
            memory(cost),
        ]);
        figures
    }

    /// Requests per lease and hour.
    fn rate_figures(&self) -> Vec<Figure> {
        let cost = &self.rest.cost;
        let hours = cost.wall.as_secs_f64() / 3600.0;
        let rate = |count| as_f64(count) / as_f64(self.objects()) / hours;
        let rates = |about| format!("{:.1}", rate(cost.asked(about)));
        let least = self.least();
        vec![
            figure(
                "Vault requests per lease and hour",
                format!("{:.1}", rate(cost.vault.len())),
            ),
            figure("  renewals", rates(About::Renewal)),
            figure("  issued", rates(About::Issue)),
            figure("  revoked", rates(About::Revocation)),
            figure("  lookups of leases", rates(About::Lookup)),
            figure("  tokens", rates(About::Token)),
            figure("  other", rates(About::Other)),
            figure("theoretical minimum", format!("{least:.1}")),
            ratio("  of that", rate(cost.vault.len()) / least, MOST_RATIO),
        ]
    }

    /// Requests per lease and hour, at least.
    fn least(&self) -> f64 {
        let [lasting, turning] = self.lots.map(as_f64);
        let ttl = self.arguments.ttl;
        let most = f64::from(Lot::Turning.most(ttl));
        let ttl = f64::from(ttl);
        let all = lasting * least::lasting(ttl) + turning * least::turning(ttl, most);
        all / as_f64(self.objects())
    }

    fn alive_figures(&self) -> Vec<Figure> {
        let census = &self.rest.census;
        let objects = self.objects();
        let (fewest, most) = census.alive();
        let (sum, counts) = census.sum();
        let more = as_f64(sum) / as_f64(counts.max(1)) - as_f64(objects);
        vec![
            figure("leases wanted", objects.to_string()),
            figure("leases alive", format!("{fewest} to {most}")),
            figure("  beside the wanted, mean", format!("{more:.1}")),
            exactly("  that no Secret tells of", census.unknown(), 0),
            (
                "  most of one object",
                census.most().to_string(),
                target(census.most() <= 2, "at most 2"),
            ),
            exactly("objects without one", objects - census.served(), 0),
        ]
    }

    fn restart_figures(&self) -> Vec<Figure> {
        let restart = &self.restart;
        let cost = &restart.cost;
        let [lasting, _] = self.lots;
        let rest = cost.vault.len() - cost.asked(About::Renewal);
        let per_lease = as_f64(rest) / as_f64(lasting);
        vec![
            figure("until leases of the deleted were gone", took(self.deleted)),
            figure("operator, until it ended", took(restart.ending)),
            figure("  until the next was ready", took(restart.away)),
            exactly("leases created", restart.created, 0),
            exactly("leases lost", restart.lost, 0),
            exactly("restarts of workloads", restart.restarts, 0),
            exactly("apiserver writes", writes(&cost.api).count(), 0),
            figure(
                "Vault requests per lease but renewals",
                format!("{per_lease:.2}"),
            ),
            cpu(cost),
            memory(cost),
        ]
    }
}

fn took(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
