//! `plimsoll-vmm`: one VM's process. Started by the daemon, with the control socket as file
//! descriptor 3.

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env(plimsoll_log::FILTER_VARIABLE);
    plimsoll_log::init(filter.unwrap_or_else(|_| EnvFilter::new("info")));
    match plimsoll_vmm::run() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(1)
        }
    }
}
