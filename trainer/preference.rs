//! Losses of preference optimisation, one pair at a time, each with its derivative.
//!
//! As in [`super::loss`]: slow and obvious, in f64. Most of them see of a pair only the *gap*, in nats:
//!
//! ```text
//! gap = (log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected))
//! ```
//!
//! where each log-prob is the sum over the completion's tokens, or their mean where that is asked for. Their derivative
//! is then with respect to the gap. `beta` times a log-ratio is the *implicit reward* of a completion (Rafailov et al.,
//! 2023, equation 5).

use super::loss::{PairTerm, Term, sigmoid, softplus};

/// The largest mean log-prob that the odds ratio is computed of: in f32 the probability below 1 that is next to it.
const MOST_LOGPROB: f64 = -(f32::EPSILON as f64) / 2.0;

fn term(loss: f64, gradient: f64) -> Term {
    Term { loss, gradient, clipped: false }
}

/// Returns the DPO loss (Rafailov et al., 2023, equation 7) with label smoothing `e` (Mitchell, 2023: conservative DPO)
/// and a margin between the implicit rewards (Amini et al., 2024, equation 6: ODPO).
///
/// ```text
/// x    = beta gap - margin
/// loss = -(1 - e) ln sigmoid(x) - e ln sigmoid(-x)
/// ```
///
/// With the mean log-probs of a policy without a reference for the gap, and `gamma` for the margin, it is the loss of
/// SimPO (Meng et al., 2024, equation 6).
pub fn dpo(gap: f64, beta: f64, margin: f64, smoothing: f64) -> Term {
    let x = beta * gap - margin;
    let loss = (1.0 - smoothing) * softplus(-x) + smoothing * softplus(x);
    term(loss, beta * (smoothing * sigmoid(x) - (1.0 - smoothing) * sigmoid(-x)))
}

/// Returns the robust DPO loss (Chowdhury et al., 2024, equation 12): an unbiased estimate of the DPO loss where a share
/// `e` below 1/2 of the labels is wrong. It has no lower bound.
///
/// ```text
/// loss = (-(1 - e) ln sigmoid(x) + e ln sigmoid(-x)) / (1 - 2 e)        x = beta gap - margin
/// ```
pub fn robust_dpo(gap: f64, beta: f64, margin: f64, flipped: f64) -> Term {
    let x = beta * gap - margin;
    let whole = 1.0 - 2.0 * flipped;
    let loss = ((1.0 - flipped) * softplus(-x) - flipped * softplus(x)) / whole;
    term(loss, -beta * ((1.0 - flipped) * sigmoid(-x) + flipped * sigmoid(x)) / whole)
}

/// Returns the IPO loss (Azar et al., 2024, equation 17): `(gap - 1 / (2 beta))^2`.
pub fn ipo(gap: f64, beta: f64) -> Term {
    let error = gap - 0.5 / beta;
    term(error * error, 2.0 * error)
}

/// Returns the squared loss of reward-aware preference optimisation (Sun et al., 2025: RPO): `(beta gap - reward_gap)^2`.
/// `reward_gap` is by how much the chosen completion is known to be better.
pub fn rpo_squared(gap: f64, beta: f64, reward_gap: f64) -> Term {
    let error = beta * gap - reward_gap;
    term(error * error, 2.0 * beta * error)
}

/// Returns the forward KL loss of RPO (NeMo's `rpo_fwd_kl`): from what the policy says of the preference to what is known.
///
/// ```text
/// loss = KL(Bernoulli(sigmoid(beta gap)) || Bernoulli(sigmoid(reward_gap)))
/// ```
pub fn rpo_forward_kl(gap: f64, beta: f64, reward_gap: f64) -> Term {
    let x = beta * gap;
    term(bernoulli_kl(x, reward_gap), beta * sigmoid(x) * sigmoid(-x) * (x - reward_gap))
}

/// Returns the backward KL loss of RPO (NeMo's `rpo_bwd_kl`): from what is known of the preference to what the policy says.
///
/// ```text
/// loss = KL(Bernoulli(sigmoid(reward_gap)) || Bernoulli(sigmoid(beta gap)))
/// ```
pub fn rpo_backward_kl(gap: f64, beta: f64, reward_gap: f64) -> Term {
    let x = beta * gap;
    // As a difference of two sigmoids it would lose its digits where both are near 1.
    let slope = match x + reward_gap > 0.0 {
        true => sigmoid(-reward_gap) - sigmoid(-x),
        false => sigmoid(x) - sigmoid(reward_gap),
    };
    term(bernoulli_kl(reward_gap, x), beta * slope)
}

/// Returns `KL(Bernoulli(sigmoid(p)) || Bernoulli(sigmoid(q)))`, of two log-odds.
fn bernoulli_kl(p: f64, q: f64) -> f64 {
    // ln sigmoid(x) = -softplus(-x)
    sigmoid(p) * (softplus(-q) - softplus(-p)) + sigmoid(-p) * (softplus(q) - softplus(p))
}

/// Returns the ORPO loss (Hong et al., 2024, equations 6 and 7), of the *mean* log-probs of both completions, and its
/// derivatives with respect to these.
///
/// ```text
/// ln odds(a) = a - ln(1 - exp(a))
/// loss       = -chosen - coef ln sigmoid(ln odds(chosen) - ln odds(rejected))
/// ```
///
/// Log-probs are kept below 0 by what f32 can tell from it: the odds of certainty are infinite.
pub fn orpo(chosen: f64, rejected: f64, coef: f64) -> PairTerm {
    let [a, b] = [chosen, rejected].map(|logprob| logprob.min(MOST_LOGPROB));
    let x = log_odds(a) - log_odds(b);
    let push = coef * sigmoid(-x);
    // d ln odds(a) / da = 1 / (1 - exp(a))
    PairTerm {
        loss: -chosen + coef * softplus(-x),
        chosen: -1.0 + push / a.exp_m1(),
        rejected: -push / b.exp_m1(),
    }
}

fn log_odds(logprob: f64) -> f64 {
    // ln(1 - exp(a)): Maechler, 2012, equation 7.
    let log_rest = if logprob > -std::f64::consts::LN_2 {
        (-logprob.exp_m1()).ln()
    } else {
        (-logprob.exp()).ln_1p()
    };
    logprob - log_rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        let error = (got - expected).abs() / expected.abs().max(1.0);
        assert!(error < 1e-6, "{got} instead of {expected}");
    }

    type Loss = fn(f64) -> Term;

    /// Every loss of a gap, with options that are not the usual ones.
    const OF_A_GAP: [(&str, Loss); 8] = [
        ("dpo", |gap| dpo(gap, 0.3, 0.0, 0.0)),
        ("cdpo", |gap| dpo(gap, 0.3, 0.0, 0.2)),
        ("odpo", |gap| dpo(gap, 0.3, 0.7, 0.0)),
        ("robust", |gap| robust_dpo(gap, 0.3, 0.0, 0.2)),
        ("ipo", |gap| ipo(gap, 0.3)),
        ("rpo_sq", |gap| rpo_squared(gap, 0.3, 1.5)),
        ("rpo_fwd_kl", |gap| rpo_forward_kl(gap, 0.3, 1.5)),
        ("rpo_bwd_kl", |gap| rpo_backward_kl(gap, 0.3, 1.5)),
    ];

    #[test]
    fn without_a_gap_dpo_is_ln_2_whatever_beta_and_smoothing() {
        for (beta, smoothing) in [(0.1, 0.0), (0.5, 0.3), (9.0, 0.49)] {
            assert_eq!(dpo(0.0, beta, 0.0, 0.0).loss, std::f64::consts::LN_2);
            close(dpo(0.0, beta, 0.0, smoothing).loss, std::f64::consts::LN_2);
            close(robust_dpo(0.0, beta, 0.0, smoothing).loss, std::f64::consts::LN_2);
        }
    }

    #[test]
    fn losses_of_a_gap_agree_with_the_table() {
        // beta gap = 1: ln(1 + exp(-1)) = 0.3132617, ln(1 + exp(1)) = 1.3132617; sigmoid(1) = 0.7310586.
        close(dpo(2.0, 0.5, 0.0, 0.0).loss, 0.313_261_7);
        close(dpo(2.0, 0.5, 0.0, 0.0).gradient, 0.5 * (0.731_058_6 - 1.0));
        close(dpo(2.0, 0.5, 0.0, 0.1).loss, 0.413_261_7); // 0.9 x 0.3132617 + 0.1 x 1.3132617
        close(dpo(2.0, 0.5, 1.0, 0.0).loss, std::f64::consts::LN_2); // the margin takes all of it
        close(robust_dpo(2.0, 0.5, 0.0, 0.1).loss, 0.188_261_7); // (0.9 x 0.3132617 - 0.1 x 1.3132617) / 0.8
        assert_eq!(ipo(2.0, 0.5), term(1.0, 2.0)); // (2 - 1)^2
        assert_eq!(rpo_squared(2.0, 0.5, 3.0), term(4.0, -2.0)); // (1 - 3)^2
        // KL of sigmoid(1) = 0.7310586 and 1/2, in nats, both ways.
        close(rpo_forward_kl(2.0, 0.5, 0.0).loss, 0.110_943_8);
        close(rpo_backward_kl(2.0, 0.5, 0.0).loss, 0.120_114_5);
        close(rpo_backward_kl(2.0, 0.5, 0.0).gradient, 0.5 * (0.731_058_6 - 0.5));
    }

    #[test]
    fn rpo_rests_where_the_implicit_reward_is_the_known_one() {
        for loss in [rpo_squared, rpo_forward_kl, rpo_backward_kl] {
            let Term { loss, gradient, .. } = loss(15.0, 0.1, 1.5);
            assert!(loss.abs() < 1e-15 && gradient.abs() < 1e-15, "{loss} {gradient}");
        }
    }

    #[test]
    fn gradients_of_losses_of_a_gap_agree_with_finite_differences() {
        let h = 1e-5;
        for (name, loss) in OF_A_GAP {
            for gap in [-40.0, -3.0, -0.1, 0.0, 0.5, 5.0, 40.0] {
                let slope = (loss(gap + h).loss - loss(gap - h).loss) / (2.0 * h);
                let got = loss(gap).gradient;
                assert!((got - slope).abs() < 1e-6 * slope.abs().max(1.0), "{name} at {gap}");
            }
        }
    }

    #[test]
    fn losses_of_a_gap_stay_finite_far_out() {
        for (name, loss) in OF_A_GAP {
            for gap in [-1e6, -4000.0, 4000.0, 1e6] {
                let Term { loss, gradient, .. } = loss(gap);
                assert!(loss.is_finite() && gradient.is_finite(), "{name} at {gap}");
            }
        }
        assert_eq!(dpo(-1e6, 1.0, 0.0, 0.0), term(1e6, -1.0));
        assert_eq!(dpo(1e6, 1.0, 0.0, 0.0).loss, 0.0);
        let both_certain = rpo_backward_kl(40.0, 1.0, 41.0).gradient;
        close(both_certain / (-(-40f64).exp() + (-41f64).exp()), 1.0);
    }

    #[test]
    fn the_odds_ratio_agrees_with_the_table() {
        // Probabilities 1/2 and 1/5 have odds 1 and 1/4: a ratio of 4, whose sigmoid of the log is 4/5.
        let got = orpo(0.5f64.ln(), 0.2f64.ln(), 0.1);
        close(got.loss, std::f64::consts::LN_2 - 0.1 * 0.8f64.ln());
        close(got.chosen, -1.0 - 0.1 * 0.2 / 0.5);
        close(got.rejected, 0.1 * 0.2 / 0.8);
        close(orpo(-1.0, -1.0, 0.5).loss, 1.0 + 0.5 * std::f64::consts::LN_2);
    }

    #[test]
    fn gradients_of_the_odds_ratio_agree_with_finite_differences() {
        let h = 1e-6;
        let loss = |c: f64, r: f64| orpo(c, r, 0.7).loss;
        for (chosen, rejected) in [(-0.5, -2.0), (-2.0, -0.5), (-30.0, -0.01), (-0.01, -30.0)] {
            let got = orpo(chosen, rejected, 0.7);
            close(
                got.chosen,
                (loss(chosen + h, rejected) - loss(chosen - h, rejected)) / (2.0 * h),
            );
            close(
                got.rejected,
                (loss(chosen, rejected + h) - loss(chosen, rejected - h)) / (2.0 * h),
            );
        }
    }

    #[test]
    fn the_odds_of_certainty_and_of_impossibility_are_finite() {
        for (chosen, rejected) in [(0.0, -1.0), (-1.0, 0.0), (0.0, 0.0), (-1e4, -1.0), (-1.0, -1e4)]
        {
            let got = orpo(chosen, rejected, 0.1);
            let all = [got.loss, got.chosen, got.rejected];
            assert!(all.iter().all(|x| x.is_finite()), "{got:?}");
        }
    }
}
