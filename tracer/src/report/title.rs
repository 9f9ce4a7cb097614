//! The processes of a profile, in a title.

use super::{label, units};
use crate::profile::{Profile, ProfiledProcess};

/// Processes that a title names one by one.
const NAMED_PROCESSES: usize = 3;

/// Returns the names and numbers of the processes, or their number where they are many; nothing
/// where there is none.
pub(super) fn processes(profile: &Profile) -> String {
    let mut processes: Vec<&ProfiledProcess> = profile.processes.iter().collect();
    processes.sort_by_key(|it| (it.pid, &it.comm));
    if processes.len() > NAMED_PROCESSES {
        return units::counted(processes.len() as u128, "process");
    }
    let names: Vec<String> = processes.into_iter().map(|it| label::process(it, true)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::sample::SampleProfile;
    use super::*;

    #[test]
    fn many_processes_are_counted() {
        let mut sample = SampleProfile::default();
        assert_eq!(processes(&sample.profile), "");
        for pid in [3, 2, 1] {
            sample.process(pid, "p");
        }
        assert_eq!(processes(&sample.profile), "p-1, p-2, p-3");
        sample.process(4, "p");
        assert_eq!(processes(&sample.profile), "4 processes");
    }
}
