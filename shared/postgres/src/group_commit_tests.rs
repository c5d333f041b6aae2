use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{sync::Semaphore, task::JoinSet};

use super::*;

/// A request: its key and its number.
type Request = (u32, u32);
type Group = GroupCommit<u32, Request, u32, Rejected>;

/// A group whose batches wait at a gate; every batch that got through is written down.
struct Gated {
    group: Arc<Group>,
    gate: Arc<Semaphore>,
    begun: Arc<Semaphore>,
    batches: Arc<Mutex<Vec<Vec<Request>>>>,
}

impl Gated {
    fn new(options: GroupCommitOptions) -> Self {
        let gate = Arc::new(Semaphore::new(0));
        let begun = Arc::new(Semaphore::new(0));
        let batches = Arc::new(Mutex::new(Vec::new()));
        let run = {
            let (gate, begun, batches) = (gate.clone(), begun.clone(), batches.clone());
            move |batch: Vec<Request>| {
                let (gate, begun, batches) = (gate.clone(), begun.clone(), batches.clone());
                async move {
                    begun.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                    let answers = batch.iter().map(|(_, number)| Ok(*number)).collect();
                    batches.lock().unwrap().push(batch);
                    answers
                }
            }
        };
        let group = Arc::new(GroupCommit::new(options, |request: &Request| request.0, run));
        Self { group, gate, begun, batches }
    }

    /// Puts requests into the queue in this order, none of them answered yet.
    async fn queue(&self, calls: &mut JoinSet<Result<u32, Rejected>>, requests: &[Request]) {
        for &request in requests {
            let before = self.waiting();
            let group = self.group.clone();
            calls.spawn(async move { group.submit(request).await });
            until(|| self.waiting() > before).await;
        }
    }

    /// Begins a batch with this one request, and leaves it at the gate.
    async fn occupy(&self, calls: &mut JoinSet<Result<u32, Rejected>>, request: Request) {
        let group = self.group.clone();
        calls.spawn(async move { group.submit(request).await });
        self.begun.acquire().await.unwrap().forget();
    }

    fn waiting(&self) -> usize {
        self.group.shared.lock().waiting.len()
    }

    fn batches(&self) -> Vec<Vec<Request>> {
        self.batches.lock().unwrap().clone()
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn options(queue: usize, workers: usize, max_batch: usize) -> GroupCommitOptions {
    GroupCommitOptions { queue, workers, max_batch }
}

#[test]
fn a_lone_call_waits_for_nothing() {
    // A runtime without a clock: a timer anywhere would panic.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let gated = Gated::new(options(8, 2, 8));
        gated.gate.add_permits(2);
        assert_eq!(gated.group.submit((1, 10)).await, Ok(10));
        assert_eq!(gated.group.submit((1, 11)).await, Ok(11));
        assert_eq!(gated.batches(), [[(1, 10)], [(1, 11)]]);
        until(|| gated.group.shared.lock().workers == 0).await;
    });
}

#[tokio::test]
async fn what_queues_while_a_worker_is_busy_becomes_one_batch() {
    let gated = Gated::new(options(64, 1, 5));
    let mut calls = JoinSet::new();
    gated.occupy(&mut calls, (0, 0)).await;
    let requests: Vec<Request> = (1..=7).map(|n| (n, n)).collect();
    gated.queue(&mut calls, &requests).await;
    gated.gate.add_permits(3);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    let sizes: Vec<_> = gated.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 5, 2]);
}

#[tokio::test]
async fn requests_of_one_key_never_meet_and_keep_their_order() {
    let gated = Gated::new(options(64, 2, 16));
    let mut calls = JoinSet::new();
    gated.occupy(&mut calls, (1, 0)).await;
    // Two workers, but every request of key 1 has to wait for the one under way.
    gated.queue(&mut calls, &[(1, 1), (1, 2)]).await;
    gated.occupy(&mut calls, (2, 3)).await;
    assert_eq!(gated.waiting(), 2);
    gated.queue(&mut calls, &[(1, 4), (2, 5), (3, 6)][..2]).await;
    gated.gate.add_permits(64);
    calls.join_all().await;
    let batches = gated.batches();
    for batch in &batches {
        let keys: HashSet<u32> = batch.iter().map(|request| request.0).collect();
        assert_eq!(keys.len(), batch.len(), "{batches:?}");
    }
    let of_key = |key| -> Vec<u32> {
        batches.iter().flatten().filter(|r| r.0 == key).map(|r| r.1).collect()
    };
    assert_eq!((of_key(1), of_key(2)), (vec![0, 1, 2, 4], vec![3, 5]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_caller_gets_its_own_answer_and_keys_stay_apart() {
    let running: Arc<[AtomicUsize; 7]> = Arc::default();
    let run = {
        let running = running.clone();
        move |batch: Vec<Request>| {
            let running = running.clone();
            async move {
                for (key, _) in &batch {
                    assert_eq!(running[*key as usize].fetch_add(1, Ordering::SeqCst), 0);
                }
                tokio::task::yield_now().await;
                for (key, _) in &batch {
                    running[*key as usize].fetch_sub(1, Ordering::SeqCst);
                }
                batch.iter().map(|(_, number)| Ok::<_, Rejected>(*number)).collect()
            }
        }
    };
    let group = Arc::new(GroupCommit::new(options(4096, 3, 8), |r: &Request| r.0, run));
    let mut calls = JoinSet::new();
    for number in 0..2000 {
        let group = group.clone();
        calls.spawn(async move {
            assert_eq!(group.submit((number % 7, number)).await, Ok(number));
        });
    }
    calls.join_all().await;
    until(|| group.shared.lock().workers == 0).await;
    assert!(group.shared.lock().busy.is_empty());
}

#[tokio::test]
async fn a_full_queue_says_so_at_once() {
    let gated = Gated::new(options(2, 1, 8));
    let mut calls = JoinSet::new();
    gated.occupy(&mut calls, (0, 0)).await;
    gated.queue(&mut calls, &[(1, 1), (2, 2)]).await;
    assert_eq!(gated.group.submit((3, 3)).await, Err(Rejected::QueueFull));
    gated.gate.add_permits(8);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(gated.group.submit((3, 3)).await, Ok(3));
}

#[tokio::test]
async fn who_leaves_before_the_batch_begins_has_nothing_done_and_makes_room() {
    let gated = Gated::new(options(1, 1, 8));
    let mut calls = JoinSet::new();
    gated.occupy(&mut calls, (0, 0)).await;
    let mut leaving = JoinSet::new();
    gated.queue(&mut leaving, &[(1, 1)]).await;
    leaving.shutdown().await;
    // The place of the one who left is free.
    let group = gated.group.clone();
    calls.spawn(async move { group.submit((2, 2)).await });
    gated.gate.add_permits(8);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(gated.batches(), [[(0, 0)], [(2, 2)]]);
}

#[tokio::test]
async fn who_leaves_after_the_batch_began_has_it_done() {
    let gated = Gated::new(options(8, 1, 8));
    let mut leaving = JoinSet::new();
    gated.occupy(&mut leaving, (1, 1)).await;
    leaving.shutdown().await;
    gated.gate.add_permits(2);
    assert_eq!(gated.group.submit((1, 2)).await, Ok(2));
    assert_eq!(gated.batches(), [[(1, 1)], [(1, 2)]]);
}

#[tokio::test]
async fn a_panic_hangs_nobody_and_the_queue_goes_on() {
    let gate = Arc::new(Semaphore::new(0));
    let run = {
        let gate = gate.clone();
        move |batch: Vec<Request>| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                assert_ne!(batch[0].1, 13, "thirteen");
                batch.iter().map(|(_, number)| Ok::<_, Rejected>(*number)).collect()
            }
        }
    };
    let group = Arc::new(GroupCommit::new(options(8, 1, 1), |r: &Request| r.0, run));
    let mut calls = Vec::new();
    for number in [13, 14] {
        let group = group.clone();
        calls.push(tokio::spawn(async move { group.submit((1, number)).await }));
        tokio::task::yield_now().await;
    }
    gate.add_permits(2);
    let (second, first) = (calls.pop().unwrap(), calls.pop().unwrap());
    assert_eq!(first.await.unwrap(), Err(Rejected::NoAnswer));
    assert_eq!(second.await.unwrap(), Ok(14));
}

#[tokio::test]
async fn a_batch_that_forgets_a_request_hangs_nobody() {
    let run = |_: Vec<Request>| async { Vec::<Result<u32, Rejected>>::new() };
    let group = GroupCommit::new(GroupCommitOptions::default(), |r: &Request| r.0, run);
    assert_eq!(group.submit((1, 1)).await, Err(Rejected::NoAnswer));
}

#[tokio::test]
async fn dropped_with_nothing_to_do_it_leaves_no_task_behind() {
    let gated = Gated::new(options(8, 2, 8));
    gated.gate.add_permits(1);
    gated.group.submit((1, 1)).await.unwrap();
    until(|| gated.group.shared.lock().workers == 0).await;
    let shared = Arc::downgrade(&gated.group.shared);
    drop(gated);
    assert!(shared.upgrade().is_none());
}
