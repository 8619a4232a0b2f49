use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryIter};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use plimsoll_protocol::VmName;
use plimsoll_words::explain;

use super::look::{Look, Seen};
use crate::client::Client;
use crate::selection::Filter;

/// What the screen wants of the daemon.
#[derive(Debug)]
pub(super) enum Order {
    /// Look as often as this from now on.
    Every(Duration),
    /// Why a VM has the memory that it has.
    Explain(VmName),
}

/// What came of asking it.
#[derive(Debug)]
pub(super) enum News {
    Seen(Box<Seen>),
    /// Why there is no new look.
    Unseen(String),
    Explained(VmName, Result<String, String>),
}

/// Looks at the daemon again and again, on a thread of its own: the daemon may be slow, or be gone
/// for a while. The thread ends with this.
#[derive(Debug)]
pub(super) struct Feed {
    orders: Sender<Order>,
    news: Receiver<News>,
}

impl Feed {
    /// Starts the thread that asks the daemon.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn new(client: Client, filter: Filter, every: Duration) -> Result<Self> {
        let (orders, ordered) = mpsc::channel();
        let (told, news) = mpsc::channel();
        let thread = thread::Builder::new().name("feed".into());
        thread
            .spawn(move || ask(&client, &filter, every, &ordered, &told))
            .context("starting a thread that asks the daemon")?;
        Ok(Self { orders, news })
    }

    pub(super) fn order(&self, order: Order) {
        // The thread runs for as long as `self` lives.
        self.orders.send(order).ok();
    }

    /// All that has come since the last call.
    pub(super) fn news(&self) -> TryIter<'_, News> {
        self.news.try_iter()
    }
}

/// Asks until the screen is gone.
fn ask(client: &Client, filter: &Filter, mut every: Duration, orders: &Receiver<Order>, told: &Sender<News>) {
    loop {
        let began = Instant::now();
        let seen = see(client, filter).map_or_else(|e| News::Unseen(format!("{e:#}")), News::Seen);
        if told.send(seen).is_err() {
            return;
        }
        loop {
            match orders.recv_timeout((began + every).saturating_duration_since(Instant::now())) {
                Ok(Order::Every(time)) => every = time,
                Ok(Order::Explain(name)) => {
                    let text = client.explain_vm(&name).map(|facts| explain::vm(&facts));
                    if told.send(News::Explained(name, text.map_err(|e| format!("{e:#}")))).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

fn see(client: &Client, filter: &Filter) -> Result<Box<Seen>> {
    let look = Look::new(client, filter)?;
    Ok(Box::new(Seen { look, pools: client.pools()? }))
}
