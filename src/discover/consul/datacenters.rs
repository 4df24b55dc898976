//! The answers of one datacenter, or of the first of several that has instances.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Sleep;

use crate::discover::Resolution;

use super::follow::Follow;
use super::instance::{Found, Instance, Reading};
use super::watch::{Answer, News, Terms};

/// A channel's view of the datacenters that it may use, the preferred one first.
///
/// A datacenter is watched while none before it has an endpoint that may get calls.
pub(super) struct Datacenters {
    all: Vec<Datacenter>,
    reading: Reading,
    told: Told,
}

/// What was passed on.
#[derive(Default)]
struct Told {
    /// From which datacenter.
    from: Option<usize>,
    answers: u64,
    troubles: u64,
    /// Why it is not the first one, once that is to be said.
    why_moved: Option<String>,
}

struct Datacenter {
    terms: Terms,
    follow: Option<Follow>,
    /// Until when the next one must wait for its first word.
    patience: Option<Pin<Box<Sleep>>>,
    news: News,
    found: Found,
    /// What `found` was read from.
    read: Option<Arc<[Instance]>>,
}

type Item = Result<Resolution, Box<dyn std::error::Error + Send + Sync>>;

/// How long a datacenter may say nothing before the next one is asked, too.
const PATIENCE: Duration = Duration::from_secs(1);

impl Datacenters {
    /// `all` has at least one.
    pub(super) fn new(all: impl IntoIterator<Item = Terms>, reading: Reading) -> Self {
        let datacenter = |terms| Datacenter {
            terms,
            follow: None,
            patience: None,
            news: News::default(),
            found: Found::default(),
            read: None,
        };
        Self {
            all: all.into_iter().map(datacenter).collect(),
            reading,
            told: Told::default(),
        }
    }

    /// Looks at each datacenter until one has endpoints, and no further. Says which is to be used: that one; else the
    /// first that has answered; else the first, for its troubles. `None` if it is too early to say.
    fn choose(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        let mut chosen = None;
        for (index, datacenter) in self.all.iter_mut().enumerate() {
            if chosen.is_some() {
                datacenter.leave();
                continue;
            }
            datacenter.look(&self.reading, cx);
            if datacenter.is_usable() {
                chosen = Some(index);
            } else if datacenter.is_silent() && !datacenter.was_silent_for_long(cx) {
                // The next one must not be used only because it was faster.
                return None;
            }
        }
        let answered = || self.all.iter().position(|it| it.news.answer.is_some());
        let troubled = || (!self.all.iter().all(Datacenter::is_silent)).then_some(0);
        chosen.or_else(answered).or_else(troubled)
    }

    /// The next thing to say about the datacenter in use.
    fn say(&mut self, index: usize) -> Option<Item> {
        let moved = self.told.from != Some(index);
        let news = &self.all[index].news;
        if let Some(answer) = news.answer.clone()
            && (moved || news.answers > self.told.answers)
        {
            let certain = moved
                && self
                    .told
                    .from
                    .is_some_and(|from| self.left_on_purpose(from));
            let why_moved = (moved && index > 0).then(|| self.why_none(index));
            let datacenter = &self.all[index];
            self.told = Told {
                from: Some(index),
                answers: datacenter.news.answers,
                // A trouble that is older than the answer is over; the other is still to be told.
                troubles: match datacenter.news.trouble {
                    Some(_) => 0,
                    None => datacenter.news.troubles,
                },
                why_moved,
            };
            let mut resolution = datacenter.resolution(&answer);
            resolution.certain = certain;
            resolution.note = (!datacenter.is_usable()).then(|| self.why_none(self.all.len()));
            return Some(Ok(resolution));
        }
        if let Some(why) = self.told.why_moved.take() {
            let name = self.all[index].terms.query.datacenter.as_deref();
            let name = name.unwrap_or_default();
            return Some(Err(format!("{why}; {name} is in use meanwhile").into()));
        }
        if news.trouble.is_none() || (!moved && news.troubles <= self.told.troubles) {
            return None;
        }
        self.told.from = Some(index);
        self.told.troubles = news.troubles;
        let trouble = if self.all[index].is_usable() {
            self.all[index].trouble()
        } else {
            self.why_none(self.all.len())
        };
        Some(Err(trouble.into()))
    }

    /// Whether a datacenter that is no longer in use knows its instances, so that what it says of them holds. If it has
    /// lost them, they may be as well as ever.
    fn left_on_purpose(&self, index: usize) -> bool {
        let answer = self.all[index].news.answer.as_ref();
        answer.is_none_or(|answer| !answer.instances.is_empty())
    }

    /// Why none of so many datacenters has an endpoint for calls.
    fn why_none(&self, count: usize) -> String {
        let parts: Vec<_> = self.all[..count].iter().map(Datacenter::why_none).collect();
        parts.join("; ")
    }
}

impl Datacenter {
    /// Takes in the latest news.
    fn look(&mut self, reading: &Reading, cx: &mut Context<'_>) {
        let follow = self
            .follow
            .get_or_insert_with(|| Follow::start(&self.terms));
        while let Poll::Ready(news) = follow.poll_news(cx) {
            self.news = news;
        }
        let Some(answer) = &self.news.answer else {
            return;
        };
        let same = self
            .read
            .as_ref()
            .is_some_and(|read| Arc::ptr_eq(read, &answer.instances));
        if !same {
            self.found = reading.read(&answer.instances, &answer.rejected);
            self.read = Some(Arc::clone(&answer.instances));
            if self.found.problems.count() > 0 {
                let (service, problems) = (&self.terms.query.service, &self.found.problems);
                tracing::warn!(service, %problems, "a part of Consul's answer can't be used");
            }
        }
    }

    /// What was found is not kept: it would be old when it is needed.
    fn leave(&mut self) {
        self.follow = None;
        self.patience = None;
        self.news = News::default();
        self.found = Found::default();
        self.read = None;
    }

    fn is_usable(&self) -> bool {
        self.found
            .endpoints
            .iter()
            .any(|it| it.weight_or_default() > 0)
    }

    fn is_silent(&self) -> bool {
        self.news.answer.is_none() && self.news.trouble.is_none()
    }

    fn was_silent_for_long(&mut self, cx: &mut Context<'_>) -> bool {
        let start = || Box::pin(tokio::time::sleep(PATIENCE));
        self.patience
            .get_or_insert_with(start)
            .as_mut()
            .poll(cx)
            .is_ready()
    }

    fn resolution(&self, answer: &Answer) -> Resolution {
        let mut resolution = Resolution::new(self.found.endpoints.iter().cloned());
        resolution.revision = answer.index.map(|index| index.to_string());
        resolution.age = answer.age + answer.came.elapsed();
        let trouble = answer.trouble.as_ref();
        resolution.warning =
            trouble.map(|trouble| self.labelled(&format!("Consul's agent: {trouble}")));
        resolution
    }

    fn why_none(&self) -> String {
        let Some(answer) = self
            .news
            .answer
            .as_ref()
            .filter(|_| self.news.trouble.is_none())
        else {
            return self.trouble();
        };
        let mut text = self.found.counts.to_string();
        if answer.hidden {
            text += "; its ACLs hide some: the token lacks service:read or node:read";
        } else if answer.instances.is_empty() {
            // Before 1.11, agents do not say that they hide something.
            text += "; if its ACLs are on, the token may lack service:read or node:read";
        }
        self.labelled(&text)
    }

    fn trouble(&self) -> String {
        self.labelled(
            self.news
                .trouble
                .as_deref()
                .unwrap_or("it has not answered"),
        )
    }

    fn labelled(&self, text: &str) -> String {
        match &self.terms.query.datacenter {
            Some(name) => format!("{name}: {text}"),
            None => text.to_owned(),
        }
    }
}

impl Stream for Datacenters {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let said = self.choose(cx).and_then(|index| self.say(index));
        said.map_or(Poll::Pending, |item| Poll::Ready(Some(item)))
    }
}
