//! When exchanges are made, and who gets what comes of them.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::super::Token;
use super::*;

#[tokio::test]
async fn a_call_that_looked_before_an_exchange_ended_asks_for_no_other() {
    let (holder, count) = scripted(|_| async { Ok(Token::new("t")) });
    let held = holder.get().await.unwrap();
    // It had found no token, and is late.
    let mut late = holder.exchanging(Instant::now()).unwrap();
    let found = late.wait_for(Option::is_some).await.unwrap().clone();
    assert!(Arc::ptr_eq(&held, &found.unwrap().unwrap()));
    assert_eq!(count.load(SeqCst), 1);
}

/// A holder whose nth exchange does what a function says, and the exchanges so far.
fn scripted<Fut>(
    script: impl Fn(u64) -> Fut + Send + Sync + 'static,
) -> (Arc<TokenHolder>, Arc<AtomicU64>)
where
    Fut: Future<Output = Result<Token, Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let credentials = Credentials::exchange(move || script(counter.fetch_add(1, SeqCst) + 1));
    let tasks = Tasks::new().unwrap();
    (TokenHolder::new(credentials, tasks), count)
}

const LIFETIME: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_leaves_the_token_in_use_until_it_expires() {
    let (holder, count) = scripted(|nth| async move {
        match nth {
            1 | 4 => Ok(Token::new(format!("t{nth}")).expires_in(LIFETIME)),
            _ => Err("the provider is down".into()),
        }
    });
    let first = holder.get().await.unwrap();
    tokio::time::advance(LIFETIME - 3 * SECOND).await;
    for exchanges in [2, 3] {
        // Until the failure is known, and after it, within its rest.
        for _ in 0..10 {
            assert!(Arc::ptr_eq(&first, &holder.get().await.unwrap()));
            tokio::task::yield_now().await;
        }
        assert_eq!(count.load(SeqCst), exchanges);
        tokio::time::advance(REST_AFTER_FAILURE).await;
    }
    tokio::time::advance(SECOND).await;
    assert_eq!(holder.get().await.unwrap().value, "Bearer t4");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_that_find_it_expired_make_one_exchange() {
    let (holder, count) = scripted(|nth| async move {
        // While it is under way, the others come.
        tokio::time::sleep(SECOND).await;
        Ok(Token::new(format!("t{nth}")).expires_in(LIFETIME))
    });
    holder.get().await.unwrap();
    tokio::time::advance(LIFETIME).await;
    let calls = (0..1000).map(|_| holder.get());
    for held in futures_util::future::join_all(calls).await {
        assert_eq!(held.unwrap().value, "Bearer t2");
    }
    assert_eq!(count.load(SeqCst), 2);
}

/// As from a provider whose clock is behind.
#[tokio::test(start_paused = true)]
async fn what_has_expired_when_it_comes_is_not_asked_for_by_each_call() {
    let token = || Token::new("t").expires_in(Duration::ZERO);
    let (holder, count) = scripted(move |_| async move { Ok(token()) });
    for _ in 0..100 {
        holder.get().await.unwrap();
    }
    assert_eq!(count.load(SeqCst), 1);
    tokio::time::advance(SECOND).await;
    holder.get().await.unwrap();
    assert_eq!(count.load(SeqCst), 2);
}

/// As a file's token, in a channel that has made no call for long.
#[tokio::test(start_paused = true)]
async fn what_nobody_has_looked_at_for_long_is_looked_at_first() {
    let (holder, count) = scripted(|nth| async move {
        match nth {
            1 | 2 | 5 => Ok(Token::new(format!("t{nth}")).look_again_after(SECOND)),
            3 => Err("the file is gone".into()),
            _ => std::future::pending().await,
        }
    });
    let get = async || {
        let held = holder.get().await.unwrap();
        held.value.to_str().unwrap().to_owned()
    };
    assert_eq!(get().await, "Bearer t1");
    tokio::time::advance(3600 * SECOND).await;
    assert_eq!(get().await, "Bearer t2");
    // It is better than none, and nobody waits a second time.
    tokio::time::advance(3600 * SECOND).await;
    for exchanges in [3, 4] {
        let start = Instant::now();
        assert_eq!(get().await, "Bearer t2");
        tokio::task::yield_now().await;
        assert_eq!(
            (count.load(SeqCst), start.elapsed()),
            (exchanges, Duration::ZERO)
        );
        tokio::time::advance(REST_AFTER_FAILURE).await;
    }
    tokio::time::sleep(EXCHANGE_LIMIT + REST_AFTER_FAILURE).await;
    assert_eq!(get().await, "Bearer t2");
    tokio::task::yield_now().await;
    assert_eq!(get().await, "Bearer t5");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_is_given_up() {
    let (holder, count) = scripted(|nth| async move {
        match nth {
            2 => std::future::pending().await,
            _ => Ok(Token::new(format!("t{nth}")).expires_in(LIFETIME)),
        }
    });
    holder.get().await.unwrap();
    tokio::time::advance(LIFETIME).await;
    let start = Instant::now();
    let error = holder.get().await.unwrap_err();
    assert!(error.to_string().contains("longer than 10s"), "{error}");
    assert_eq!(start.elapsed().as_secs(), EXCHANGE_LIMIT.as_secs());
    tokio::time::advance(REST_AFTER_FAILURE).await;
    assert_eq!(holder.get().await.unwrap().value, "Bearer t3");
    assert_eq!(count.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_paid_for_once_each_and_have_a_limit() {
    let (holder, count) = scripted(|_| async { Ok(Token::new("t")) });
    for exchanges in 1..=u64::from(REFUSALS.0) {
        let held = holder.get().await.unwrap();
        assert_eq!(count.load(SeqCst), exchanges);
        // However many calls had it.
        for _ in 0..10 {
            assert!(holder.refused(&held));
        }
    }
    let held = holder.get().await.unwrap();
    assert!(!holder.refused(&held), "the bucket is empty");
    assert!(Arc::ptr_eq(&held, &holder.get().await.unwrap()));
    tokio::time::advance(REFUSALS.1).await;
    assert!(holder.refused(&held));
    assert!(!Arc::ptr_eq(&held, &holder.get().await.unwrap()));
}

#[tokio::test]
async fn an_exchange_that_the_channels_end_cuts_leaves_nobody_waiting() {
    let (holder, _) = scripted(|_| std::future::pending());
    let waiting = holder.exchanging(Instant::now()).unwrap();
    tokio::task::yield_now().await;
    holder.tasks.cancel();
    assert_eq!(holder.get().await.unwrap_err().kind(), Kind::Closed);
    drop(waiting);
    assert!(lock(&holder.exchange).running.is_none());
}

/// The end of a channel waits for what calls wait for, and for nothing else.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_does_not_hold_up_the_channels_end() {
    let (holder, count) = scripted(|nth| async move {
        match nth {
            1 => Ok(Token::new("t1").expires_in(LIFETIME)),
            _ => std::future::pending().await,
        }
    });
    holder.get().await.unwrap();
    tokio::time::advance(LIFETIME - 3 * SECOND).await;
    holder.get().await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(count.load(SeqCst), 2);
    let start = Instant::now();
    holder.tasks.stop();
    holder.tasks.ended().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(lock(&holder.exchange).running.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_its_token_has_it_while_the_channel_closes() {
    let (holder, _) = scripted(|_| async {
        tokio::time::sleep(3 * SECOND).await;
        Ok(Token::new("t"))
    });
    let closing = async {
        tokio::time::sleep(SECOND).await;
        holder.tasks.stop();
        // One that comes while the channel closes, as an attempt of a running call may.
        holder.get().await
    };
    let (running, late) = tokio::join!(holder.get(), closing);
    assert_eq!(running.unwrap().value, "Bearer t");
    assert_eq!(late.unwrap().value, "Bearer t");
    holder.tasks.ended().await;
}
