//! Questions about leases, and their answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proto::types::{PeerName, Time};

use crate::allocator::progress::ASK_AGAIN;
use crate::leases::LeaseKey;
use crate::leases::wire::Outcome;

/// Time after which a holder that did not answer is asked again.
const ASK_HOLDER_AGAIN: Duration = Duration::from_secs(1);
/// How long an inconclusive answer is believed before the question is repeated.
const ANSWER_KEPT: Duration = Duration::from_millis(500);

/// State of a question to the holder of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseAsked {
    /// It was asked; look again at this time.
    Waiting(Time),
    /// It answered this; ask again at this time.
    Answered(Outcome, Time),
    /// It cannot be asked.
    Unreachable,
}

#[derive(Debug)]
struct Question {
    nonce: u64,
    at: Time,
    outcome: Option<(Outcome, Time)>,
}

pub(crate) type QuestionKey = (PeerName, u8, Arc<LeaseKey>, u64);

/// Recent questions, by peer, kind, lease and its version.
#[derive(Debug, Default)]
pub(crate) struct LeaseQuestions {
    questions: BTreeMap<QuestionKey, Question>,
}

impl LeaseQuestions {
    /// Returns the state of a question, or `None` if it must be sent.
    pub(crate) fn state(&self, key: &QuestionKey, now: Time) -> Option<LeaseAsked> {
        let question = self.questions.get(key)?;
        match question.outcome {
            Some((outcome, at)) if at + ANSWER_KEPT > now => {
                Some(LeaseAsked::Answered(outcome, at + ANSWER_KEPT))
            }
            None if question.at + ASK_HOLDER_AGAIN > now => {
                Some(LeaseAsked::Waiting(question.at + ASK_HOLDER_AGAIN))
            }
            _ => None,
        }
    }

    pub(crate) fn sent(&mut self, key: QuestionKey, nonce: u64, now: Time) -> LeaseAsked {
        let question = Question {
            nonce,
            at: now,
            outcome: None,
        };
        self.questions.insert(key, question);
        LeaseAsked::Waiting(now + ASK_HOLDER_AGAIN)
    }

    /// Records the answer of a peer, if it was asked.
    pub(crate) fn answered(&mut self, from: PeerName, nonce: u64, outcome: Outcome, now: Time) {
        let mut questions = self.questions.iter_mut();
        let question = questions.find(|(key, question)| key.0 == from && question.nonce == nonce);
        if let Some((_, question)) = question {
            question.outcome = Some((outcome, now));
        }
    }

    pub(crate) fn forget(&mut self, peer: PeerName) {
        self.questions.retain(|key, _| key.0 != peer);
    }

    pub(crate) fn forget_old(&mut self, now: Time) {
        self.questions
            .retain(|_, question| question.at + ASK_AGAIN > now);
    }
}
