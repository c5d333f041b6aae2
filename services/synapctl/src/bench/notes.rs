//! `bench notes`.

mod floor;
mod kind;
mod system;

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use clap::Args;

use self::{floor::Straight, kind::Kind, system::Gateway};
use super::{
    corpus,
    load::{self, Done, Measured},
    processes::Processes,
    report::{self, Subject},
    search::words::searches,
    stores::StoreKind,
};
use crate::cli::Exit;

/// What is watched.
const SERVICES: [&str; 4] = ["gateway", "content-service", "entity-service", "event-service"];

/// Reads, writes and searches side by side: of twenty calls fourteen are GetNote with the body, three
/// CreateNote, two UpdateNote, one SearchNotes, over notes of real text and many users. The floor does
/// the same straight to the stores. Every service is a process of its own, and what each holds at most
/// is told.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  cargo run --release -- bench notes --notes 100000 --users 100 --concurrency 16"
)]
pub struct NotesArgs {
    /// Notes that are there before anything is measured.
    #[arg(long, default_value_t = 100_000)]
    notes: usize,
    /// Users, each with as many notes.
    #[arg(long, default_value_t = 100)]
    users: usize,
    /// How many callers at once; lines for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    concurrency: Vec<usize>,
    /// Seconds that each side is measured at each concurrency.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// One of the two that are compared.
trait Side: Clone + Send + Sync + 'static {
    /// Does a call. Which note, text and search it is about follows from its number.
    fn call(&self, kind: Kind, number: usize) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A side that notes down how long each call took.
struct Timed<S> {
    side: S,
    next: AtomicUsize,
    latencies: [Mutex<Vec<Duration>>; 4],
}

impl<S: Side> Timed<S> {
    fn new(side: S) -> Arc<Self> {
        Arc::new(Self { side, next: AtomicUsize::new(0), latencies: Default::default() })
    }

    fn does(self: &Arc<Self>) -> impl Fn(usize) -> Done + Send + Sync + 'static {
        let this = Arc::clone(self);
        move |_| -> Done {
            let this = Arc::clone(&this);
            Box::pin(async move {
                // A step that has no factor in common with the twenty calls or the number of notes
                // that anybody asks for: neighbours are of other kinds and about other notes.
                let number = 7_919 * this.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let (kind, begun) = (Kind::of(number), Instant::now());
                this.side.call(kind, number).await?;
                this.of(kind).push(begun.elapsed());
                Ok(())
            })
        }
    }

    fn of(&self, kind: Kind) -> std::sync::MutexGuard<'_, Vec<Duration>> {
        self.latencies[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noted down since the last time.
    fn take(&self) -> [Vec<Duration>; 4] {
        Kind::ALL.map(|kind| std::mem::take(&mut *self.of(kind)))
    }
}

/// Runs the benchmark. Linux only: it reads `/proc`.
pub(super) async fn bench(args: NotesArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.concurrency.iter().all(|n| (1..=1024).contains(n))
            && args.seconds > 0
            && (1..=10_000).contains(&args.users)
            && args.notes >= args.users,
        "--concurrency is 1 to 1024, --users 1 to 10000, --notes at least --users"
    );
    let texts = Arc::new(corpus::notes()?);
    let searches = Arc::new(searches(&texts));
    let processes = Processes::start(StoreKind::Local).await?;
    let gateway = Gateway::connect(&processes, args.users, texts, searches)?;
    let notes = gateway.write(args.notes).await?;
    let straight = Straight::open(&processes, &gateway, notes).await?;

    let (system, floor) = (Timed::new(gateway), Timed::new(straight));
    for &concurrency in &args.concurrency {
        measure(&args, concurrency, &processes, &system, &floor).await?;
    }
    drop(floor);
    processes.stop().await;
    Ok(Exit::Well)
}

async fn measure(
    args: &NotesArgs,
    concurrency: usize,
    processes: &Processes,
    system: &Arc<Timed<Gateway>>,
    floor: &Arc<Timed<Straight>>,
) -> anyhow::Result<()> {
    load::run(concurrency, load::WARM_UP, system.does()).await?;
    load::run(concurrency, load::WARM_UP, floor.does()).await?;
    system.take();
    floor.take();
    let watched = processes.watch(&SERVICES)?;
    let slice = Duration::from_secs(args.seconds) / load::SLICES;
    let (mut of_system, mut of_floor) = (Measured::default(), Measured::default());
    for _ in 0..load::SLICES {
        of_system.add(load::run(concurrency, slice, system.does()).await?);
        of_floor.add(load::run(concurrency, slice, floor.does()).await?);
    }
    let memory = watched.peaks(Vec::new())?;

    let (notes, users) = (args.notes, args.users);
    let by_kind = Kind::ALL.into_iter().zip(system.take()).zip(floor.take());
    for ((kind, system), floor) in by_kind {
        report::print_title(args.json, &format!("{} of {notes} notes", kind.name()));
        let subject =
            Subject { store: "local", operation: kind.name(), bytes: 0, rows: Some(notes) };
        let system = Measured::of(system, of_system.elapsed());
        let floor = Measured::of(floor, of_floor.elapsed());
        report::Line::new(concurrency, system.into(), floor.into())
            .about(subject, Vec::new())
            .print(args.json)?;
    }
    report::print_title(args.json, &format!("all of them, over {users} users"));
    let subject = Subject { store: "local", operation: "all", bytes: 0, rows: Some(notes) };
    report::Line::new(concurrency, of_system.into(), of_floor.into())
        .about(subject, memory)
        .print(args.json)
}
