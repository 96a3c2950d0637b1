//! How far apart two distributions of the next token are, given log-probs of some tokens.

use super::super::config::Divergence;

/// Mass below which the tokens that are not compared count for nothing: what f32 log-probs of a whole vocabulary leave.
pub const TAIL_FLOOR: f64 = 1e-6;

/// What is compared, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Which divergence.
    pub kl: Divergence,
    /// The teacher's weight in the mixture of [`Divergence::Js`].
    pub js_beta: f64,
    /// Compare distributions over the tokens that are given alone.
    pub renormalize: bool,
}

impl Comparison {
    /// Returns the divergence (nats) of a student from a teacher, given what both say of the same `K` tokens (log-probs in
    /// nats), and its derivative with respect to each of the student's.
    ///
    /// With `p` the teacher's distribution and `q` the student's, over outcomes `k`:
    ///
    /// ```text
    /// forward    sum_k p_k (log p_k - log q_k)                                   d / d log q_k = -p_k
    /// backward   sum_k q_k (log q_k - log p_k)                                   q_k (log q_k - log p_k + 1)
    /// js         beta KL(p || m) + (1 - beta) KL(q || m)                         (1 - beta) q_k (log q_k - log m_k)
    ///            m = beta p + (1 - beta) q
    /// ```
    ///
    /// Renormalised, the outcomes are the `K` tokens, and `log q_k = s_k - log sum_j exp s_j`, so that with `g_k` the
    /// derivatives above `d / d s_j = g_j - q_j sum_k g_k`. Otherwise all other tokens are one more outcome, `q_0 = 1 - sum_j
    /// exp s_j`, and `d / d s_j = g_j - (q_j / q_0) g_0`. Where that outcome has less than [`TAIL_FLOOR`] on both sides there is
    /// none; where on one, it has so much there.
    ///
    /// The Jensen-Shannon divergence is that of Agarwal et al. (2024, GKD), equation 1, and TRL's: the teacher weighs `beta`.
    /// Lin (1991) has it as `H(m) - beta H(p) - (1 - beta) H(q)`, with these weights for his pi_1 and pi_2. Divided by `beta` it
    /// goes to the forward KL as `beta` goes to 0, and divided by `1 - beta` to the backward KL as that goes to 0.
    ///
    /// # Panics
    /// If the two are not of one length.
    pub fn of(&self, teacher: &[f64], student: &[f64]) -> (f64, Vec<f64>) {
        assert_eq!(teacher.len(), student.len(), "one number of both for each token");
        let [p0, q0] = [teacher, student].map(tail);
        let has_tail = !self.renormalize && (p0 >= TAIL_FLOOR || q0 >= TAIL_FLOOR);
        if has_tail {
            let (p0, q0) = (p0.max(TAIL_FLOOR), q0.max(TAIL_FLOOR));
            let (mut loss, mut slopes) = self.sum(teacher, student);
            let (term, slope) = self.outcome(p0.ln(), q0.ln());
            loss += term;
            let rest = slope / q0;
            slopes.iter_mut().zip(student).for_each(|(slope, log_q)| *slope -= log_q.exp() * rest);
            return (loss, slopes);
        }
        let [teacher, student] = [teacher, student].map(normalized);
        let (loss, mut slopes) = self.sum(&teacher, &student);
        let sum: f64 = slopes.iter().sum();
        slopes.iter_mut().zip(&student).for_each(|(slope, log_q)| *slope -= log_q.exp() * sum);
        (loss, slopes)
    }

    /// Adds up the terms of these outcomes; the derivative of each is with respect to its own log-prob.
    fn sum(&self, log_p: &[f64], log_q: &[f64]) -> (f64, Vec<f64>) {
        let terms = log_p.iter().zip(log_q).map(|(&log_p, &log_q)| self.outcome(log_p, log_q));
        let mut loss = 0.0;
        let slopes = terms.map(|(term, slope)| {
            loss += term;
            slope
        });
        let slopes = slopes.collect();
        (loss, slopes)
    }

    fn outcome(&self, log_p: f64, log_q: f64) -> (f64, f64) {
        let (p, q) = (log_p.exp(), log_q.exp());
        match self.kl {
            Divergence::Forward => (p * (log_p - log_q), -p),
            Divergence::Backward => (q * (log_q - log_p), q * (log_q - log_p + 1.0)),
            Divergence::Js => {
                let (beta, rest) = (self.js_beta, 1.0 - self.js_beta);
                let largest = log_p.max(log_q);
                let mixed = beta * (log_p - largest).exp() + rest * (log_q - largest).exp();
                let log_m = largest + mixed.ln();
                let slope = rest * q * (log_q - log_m);
                (beta * p * (log_p - log_m) + slope, slope)
            }
        }
    }
}

/// Returns what is left for all other tokens.
fn tail(logprobs: &[f64]) -> f64 {
    1.0 - logprobs.iter().map(|logprob| logprob.exp()).sum::<f64>()
}

fn normalized(logprobs: &[f64]) -> Vec<f64> {
    let largest = logprobs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logprobs.iter().map(|logprob| (logprob - largest).exp()).sum();
    logprobs.iter().map(|logprob| logprob - largest - sum.ln()).collect()
}
