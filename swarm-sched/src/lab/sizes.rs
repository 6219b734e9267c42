//! Pure: how large machines and tasks are, as published for large clusters.
//!
//! None of this replays a trace. The traces are not redistributed here; what follows are
//! distributions with the published properties, and where a number is ours it says so.
//!
//! **Google, 2011.** Machines: the shares of C. Reiss et al., "Heterogeneity and Dynamicity of Clouds
//! at Scale: Google Trace Analysis", `SoCC` 2012, table 1, in parts of the largest machine: 53 % have
//! half of its CPU and half of its memory, 31 % half and a quarter, 8 % half and three quarters, 6 %
//! all of both, 1 % a quarter of both. That the largest has 64 cores and 256 GiB is ours.
//!
//! **Google, 2019.** Jobs: M. Tirmazi et al., "Borg: the Next Generation", `EuroSys` 2020: what a job
//! consumes is so heavy-tailed that the largest 1 % of all jobs consume over 99 %; their fit is a
//! Pareto tail with an exponent of about 0.7 (0.69 for CPU). Here a job's CPU in all its tasks is a
//! Pareto distribution with that exponent, cut off at 0.1 and 200 cores. The cut-offs are ours: they
//! leave a tail that one small cluster can hold (the top 1 % have about a fifth). So are the number
//! of tasks of a job and the ratio of memory to CPU (log-normal around 4 GiB for each core, as the
//! same papers find no fixed ratio).
//!
//! **Alibaba, 2018.** J. Guo et al., "Who limits the resource efficiency of my datacenter", `IWQoS`
//! 2019: equal machines of 96 cores on which containers of online services and batch tasks lie
//! together, and memory is what runs out first. C. Jiang et al., "Characterizing Co-located
//! Workloads in Alibaba Cloud Datacenters", IEEE TCC 2022: batch jobs have about Zipf-many tasks.
//! The trace tells memory only in parts of a machine; 384 GiB is ours, and so are the sizes
//! themselves: containers of 4 to 16 cores that ask for more memory than their share, batch tasks of
//! half a core or one.

use swarm_core::model::Resources;

use super::dice::Dice;

/// A thousandth of a core, in billionths.
const MILLI: i64 = 1_000_000;
const MIB: i64 = 1 << 20;

/// Processor time and memory: what a node has, or what a task reserves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// Billionths of a core.
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
}

impl Size {
    /// So many cores and GiB, rounded to a hundredth of a core and a MiB; never nothing.
    #[must_use]
    pub fn of(cores: f64, gib: f64) -> Self {
        let cpus = (cores * 100.0).round().max(1.0) as i64 * 10 * MILLI;
        Self { cpus, memory: ((gib * 1024.0).round() as i64).max(1) * MIB }
    }

    /// The same for the model.
    #[must_use]
    pub fn resources(self) -> Resources {
        Resources { nano_cpus: self.cpus, memory_bytes: self.memory, ..Resources::default() }
    }

    /// So many of it.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Self { cpus: self.cpus * count, memory: self.memory * count }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { cpus: self.cpus + other.cpus, memory: self.memory + other.memory }
    }

    /// What is left of it.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { cpus: self.cpus - other.cpus, memory: self.memory - other.memory }
    }

    /// Whether it fits into another.
    #[must_use]
    pub fn fits(self, room: Self) -> bool {
        self.cpus <= room.cpus && self.memory <= room.memory
    }

    /// The larger of its parts of another's CPU and memory: the dominant share. 0 of nothing.
    #[must_use]
    pub fn share(self, of: Self) -> f64 {
        part(self.cpus, of.cpus).max(part(self.memory, of.memory))
    }
}

/// A part of an amount; 0 of nothing.
pub(super) fn part(of: i64, whole: i64) -> f64 {
    if whole <= 0 { 0.0 } else { of as f64 / whole as f64 }
}

impl std::iter::Sum for Size {
    fn sum<I: Iterator<Item = Self>>(sizes: I) -> Self {
        sizes.fold(Self::default(), Self::plus)
    }
}

/// Whose machines and tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Equal machines; every size from a quarter of a core to two is as frequent as every other.
    Uniform,
    /// Google's, with a heavy tail.
    Google,
    /// Alibaba's: large containers beside small batch tasks, with little memory left.
    Alibaba,
}

impl Family {
    /// A machine.
    pub fn machine(self, dice: &mut Dice) -> Size {
        match self {
            Self::Uniform => Size::of(16.0, 64.0),
            Self::Google => {
                let (cpu, memory) = dice.pick(&[
                    (53, (0.5, 0.5)),
                    (31, (0.5, 0.25)),
                    (8, (0.5, 0.75)),
                    (6, (1.0, 1.0)),
                    (1, (0.25, 0.25)),
                ]);
                Size::of(64.0 * cpu, 256.0 * memory)
            }
            Self::Alibaba => Size::of(96.0, 384.0),
        }
    }

    /// A service: how many tasks, and what each reserves.
    pub fn service(self, dice: &mut Dice) -> (u64, Size) {
        match self {
            Self::Uniform => {
                let cores = 0.25 * (1 + dice.below(8)) as f64;
                let gib = 0.5 * (1 + dice.below(15)) as f64;
                (1 + dice.below(10), Size::of(cores, gib))
            }
            Self::Google => google(dice),
            Self::Alibaba if dice.chance(0.4) => {
                let cores = dice.pick(&[(70, 4.0), (20, 8.0), (5, 12.0), (5, 16.0)]);
                let gib = cores * dice.pick(&[(3, 4.0), (4, 5.0), (2, 6.0), (1, 8.0)]);
                (1 + dice.below(12), Size::of(cores, gib))
            }
            Self::Alibaba => {
                let cores = dice.pick(&[(1, 0.5), (1, 1.0)]);
                (whole(dice.pareto(1.0, 1.0, 100.0)), Size::of(cores, 3.0 * dice.lognormal(0.5)))
            }
        }
    }
}

/// A job of the 2019 trace: most have one small task, few have most of everything.
fn google(dice: &mut Dice) -> (u64, Size) {
    const LARGEST_TASK: f64 = 12.0;
    let cores = dice.pareto(0.69, 0.1, 200.0);
    let tasks = if dice.chance(0.5) { 1 } else { whole(dice.pareto(1.0, 2.0, 64.0)) };
    let tasks = tasks.max(whole((cores / LARGEST_TASK).ceil()));
    let each = (cores / tasks as f64).max(0.05);
    let gib_per_core = (4.0 * dice.lognormal(0.7)).clamp(0.5, 20.0);
    (tasks, Size::of(each, (each * gib_per_core).min(60.0)))
}

fn whole(number: f64) -> u64 {
    number.max(1.0) as u64
}

impl From<&Resources> for Size {
    fn from(resources: &Resources) -> Self {
        Self { cpus: resources.nano_cpus, memory: resources.memory_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws many services and returns their totals in cores, the largest first.
    fn cores(family: Family) -> Vec<f64> {
        let mut dice = Dice::new(1, "sizes");
        let total = |(tasks, size): (u64, Size)| size.times(tasks).cpus as f64 / 1e9;
        let mut cores: Vec<_> = (0..20_000).map(|_| total(family.service(&mut dice))).collect();
        cores.sort_by(f64::total_cmp);
        cores.reverse();
        cores
    }

    fn share_of_top(cores: &[f64], percent: usize) -> f64 {
        let top = cores.len() * percent / 100;
        cores[..top].iter().sum::<f64>() / cores.iter().sum::<f64>()
    }

    #[test]
    fn the_tails_are_as_heavy_as_said() {
        let google = cores(Family::Google);
        let top = share_of_top(&google, 1);
        assert!((0.15..0.5).contains(&top), "the top 1 % have {top}");
        assert!(share_of_top(&google, 10) > 0.6, "{}", share_of_top(&google, 10));
        let uniform = share_of_top(&cores(Family::Uniform), 1);
        assert!(uniform < 0.05, "{uniform}");
    }

    #[test]
    fn alibabas_memory_runs_out_first() {
        let mut dice = Dice::new(1, "memory");
        let machine = Family::Alibaba.machine(&mut dice);
        let one = |_| {
            let (tasks, size) = Family::Alibaba.service(&mut dice);
            size.times(tasks)
        };
        let all: Size = (0..5_000).map(one).sum();
        let ratio = part(all.memory, machine.memory) / part(all.cpus, machine.cpus);
        assert!((1.05..1.6).contains(&ratio), "{ratio}");
    }

    #[test]
    fn every_task_fits_on_a_machine() {
        for family in [Family::Uniform, Family::Google, Family::Alibaba] {
            let mut dice = Dice::new(3, "fit");
            for _ in 0..5_000 {
                let (tasks, size) = family.service(&mut dice);
                assert!(tasks > 0 && size.cpus > 0 && size.memory > 0);
                let common = Size::of(16.0, 64.0);
                assert!(family == Family::Alibaba || size.fits(common), "{size:?}");
            }
        }
    }
}
