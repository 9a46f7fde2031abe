//! Work that several threads share.
//!
//! Last in, first out, so that what is in flight stays little. Urgent tasks are taken before all others,
//! and a thread that finds too many of them waiting does the task itself.
#![forbid(unsafe_code)]

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::lock::lock;

/// See the module's description.
#[derive(Debug)]
pub struct WorkQueue<T> {
    state: Mutex<State<T>>,
    work: Condvar,
    drained: Condvar,
    /// Urgent tasks that may wait at once.
    bound: usize,
}

#[derive(Debug)]
struct State<T> {
    urgent: Vec<T>,
    later: Vec<T>,
    /// Queued or running.
    outstanding: usize,
    /// Threads that wait for a task.
    idle: usize,
    closed: bool,
}

/// A look at a queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueLook {
    /// Tasks that wait for a thread.
    pub queued: usize,
    /// The urgent ones of them that the caller counts.
    pub counted: usize,
    /// Threads that wait for a task.
    pub idle: usize,
}

impl<T> WorkQueue<T> {
    /// An empty queue in which `bound` urgent tasks may wait.
    pub fn bounded(bound: usize) -> Self {
        let (urgent, later) = (Vec::new(), Vec::new());
        let state = State { urgent, later, outstanding: 0, idle: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), drained: Condvar::new(), bound }
    }

    /// Adds an urgent task.
    ///
    /// # Errors
    ///
    /// The task, when too many wait already.
    pub fn offer(&self, task: T) -> Result<(), T> {
        let mut state = lock(&self.state);
        if state.urgent.len() >= self.bound {
            return Err(task);
        }
        state.urgent.push(task);
        self.added(&mut state);
        Ok(())
    }

    /// Whether [`WorkQueue::offer`] would be taken now.
    pub fn has_room(&self) -> bool {
        lock(&self.state).urgent.len() < self.bound
    }

    /// Adds an urgent task that the thread that found it cannot do itself.
    pub fn push_urgent(&self, task: T) {
        let mut state = lock(&self.state);
        state.urgent.push(task);
        self.added(&mut state);
    }

    /// Adds a task that is taken when no urgent one waits.
    pub fn push(&self, task: T) {
        let mut state = lock(&self.state);
        state.later.push(task);
        self.added(&mut state);
    }

    fn added(&self, state: &mut State<T>) {
        state.outstanding += 1;
        if state.idle > 0 {
            self.work.notify_one();
        }
    }

    /// Tasks that wait and are not urgent.
    pub fn later(&self) -> u64 {
        lock(&self.state).later.len() as u64
    }

    /// Runs tasks until the queue is closed. For every worker thread.
    pub fn work(&self, mut run: impl FnMut(T)) {
        loop {
            let mut state = lock(&self.state);
            let task = loop {
                if let Some(task) = state.take() {
                    break task;
                }
                if state.closed {
                    return;
                }
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            };
            drop(state);
            run(task);
            let mut state = lock(&self.state);
            state.outstanding -= 1;
            if state.outstanding == 0 {
                self.drained.notify_all();
            }
        }
    }

    /// Runs everything that is queued in the calling thread, the only one.
    pub fn drain(&self, mut run: impl FnMut(T)) {
        loop {
            let mut state = lock(&self.state);
            let Some(task) = state.take() else { return };
            state.outstanding -= 1;
            drop(state);
            run(task);
        }
    }

    /// Waits until everything is done, `most` at most, and counts the urgent tasks that wait then and that
    /// `counts` is true for. `None` when everything was done before.
    pub fn wait(&self, most: Duration, counts: impl Fn(&T) -> bool) -> Option<QueueLook> {
        let state = lock(&self.state);
        if state.outstanding == 0 {
            return None;
        }
        let state = self
            .drained
            .wait_timeout(state, most)
            .map_or_else(|error| error.into_inner().0, |waited| waited.0);
        Some(QueueLook {
            queued: state.urgent.len() + state.later.len(),
            counted: state.urgent.iter().filter(|task| counts(task)).count(),
            idle: state.idle,
        })
    }

    /// Lets the threads end that have no task.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.work.notify_all();
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<T> {
        self.urgent.pop().or_else(|| self.later.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_tasks_come_first_and_the_last_of_them_before_the_others() {
        let queue = WorkQueue::bounded(2);
        queue.push(1);
        queue.offer(2).unwrap();
        queue.push(3);
        queue.offer(4).unwrap();
        let mut done = Vec::new();
        queue.drain(|task| done.push(task));
        assert_eq!(done, [4, 2, 3, 1]);
    }

    #[test]
    fn what_is_beyond_the_bound_is_given_back() {
        let queue = WorkQueue::bounded(1);
        assert_eq!((queue.offer(1), queue.offer(2)), (Ok(()), Err(2)));
        queue.push_urgent(3);
        let look = queue.wait(Duration::ZERO, |task| *task == 3).unwrap();
        assert_eq!((look.queued, look.counted, look.idle), (2, 1, 0));
    }

    #[test]
    fn what_a_task_adds_is_waited_for() {
        let queue = WorkQueue::bounded(1);
        let done = Mutex::new(0);
        queue.push(5);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    queue.work(|task: u32| {
                        *lock(&done) += 1;
                        (0..task).for_each(|_| queue.push(task - 1));
                    });
                });
            }
            while queue.wait(Duration::from_secs(60), |_| false).is_some() {}
            // 5 + 5*4 + 5*4*3 + 5*4*3*2 + 5*4*3*2*1, and the first.
            assert_eq!(*lock(&done), 1 + 5 + 20 + 60 + 120 + 120);
            queue.close();
        });
    }
}
