"""Writes losses.json: losses, advantages and KL estimates of random numbers, in f64, with gradients by autograd.

Run by hand with torch 2.11.0 and trl 1.12.0; the result is committed. `masked_mean` and `masked_whiten` are TRL's own
functions (trl/experimental/ppo/ppo_trainer.py); its losses and GAE stand inside its training loops and are transcribed
here line by line, from that file and from trl/trainer/reward_trainer.py.
"""

import json
import pathlib

import torch
import trl
from trl.experimental.ppo.ppo_trainer import masked_mean, masked_whiten

assert torch.__version__.split("+")[0] == "2.11.0", torch.__version__
assert trl.__version__ == "1.12.0", trl.__version__

torch.manual_seed(7)
torch.set_default_dtype(torch.float64)
ROWS, TOKENS = 4, 9


def rounded(*shape, scale=1.0):
    """Random numbers that f32 holds exactly, so that f32 and f64 code starts from the same ones."""
    return (torch.randn(*shape) * scale).float().double()


def lists(**tensors):
    return {name: value.tolist() if torch.is_tensor(value) else value for name, value in tensors.items()}


def gradient(loss, of):
    return torch.autograd.grad(loss, of)


def surrogate():
    """ppo_trainer.py: pg_losses, pg_losses2, pg_loss; here with the two sides of the clip named apart."""
    old, advantages = rounded(40, scale=2.0), rounded(40)
    logprobs = (old + rounded(40, scale=0.4)).float().double().requires_grad_()
    low, high = 0.2, 0.28
    ratio = torch.exp(logprobs - old)
    losses = -advantages * ratio
    losses2 = -advantages * torch.clamp(ratio, 1.0 - low, 1.0 + high)
    per_token = torch.max(losses, losses2)
    loss = per_token.mean()
    clipped = (losses2 > losses).double().mean()
    (slope,) = gradient(loss, [logprobs])
    return lists(logprobs=logprobs, old_logprobs=old, advantages=advantages, clip_low=low, clip_high=high,
                 per_token=per_token, loss=loss, clip_fraction=clipped, gradient=slope)


def value():
    """ppo_trainer.py: vpredclipped, vf_loss_max, vf_loss."""
    old, returns, clip = rounded(40), rounded(40), 0.1
    values = (old + rounded(40, scale=0.3)).float().double().requires_grad_()
    clipped = torch.clamp(values, old - clip, old + clip)
    losses1, losses2 = torch.square(values - returns), torch.square(clipped - returns)
    loss = 0.5 * torch.max(losses1, losses2).mean()
    (slope,) = gradient(loss, [values])
    return lists(values=values, old_values=old, returns=returns, clip_range=clip, loss=loss,
                 clip_fraction=(losses2 > losses1).double().mean(), gradient=slope)


def gae():
    """ppo_trainer.py: step 6, over padded rows; values and rewards beyond a row's length are 0, as step 3 leaves them."""
    lengths, gamma, lam = [9, 6, 1, 4], 0.99, 0.95
    mask = torch.arange(TOKENS)[None] < torch.tensor(lengths)[:, None]
    rewards, values = rounded(ROWS, TOKENS) * mask, rounded(ROWS, TOKENS) * mask
    lastgaelam, reversed_ = 0, []
    for t in reversed(range(TOKENS)):
        nextvalues = values[:, t + 1] if t < TOKENS - 1 else 0.0
        delta = rewards[:, t] + gamma * nextvalues - values[:, t]
        lastgaelam = delta + gamma * lam * lastgaelam
        reversed_.append(lastgaelam)
    advantages = torch.stack(reversed_[::-1], axis=1)
    whitened = masked_whiten(advantages, mask)
    rows = lambda x: [row[:n].tolist() for row, n in zip(x, lengths)]
    return {"gamma": gamma, "lambda": lam, "rewards": rows(rewards), "values": rows(values),
            "advantages": rows(advantages), "returns": rows(advantages + values),
            "whitened": rows(whitened), "mean": masked_mean(advantages, mask).item(),
            "rewards_whitened": rows(masked_whiten(rewards, mask, shift_mean=False))}


def kl():
    """ppo_trainer.py: step 4 (k1, k3); k2 as in joschu.net/blog/kl-approx.html, which it follows."""
    ref = rounded(30, scale=2.0)
    logprobs = (ref + rounded(30, scale=0.7)).float().double().requires_grad_()
    logr = ref - logprobs
    estimates = {"k1": -logr, "k2": logr**2 / 2, "k3": (logr.exp() - 1) - logr}
    result = lists(logprobs=logprobs, ref_logprobs=ref)
    for name, values in estimates.items():
        (slope,) = gradient(values.sum(), [logprobs])
        result |= {name: values.tolist(), f"{name}_gradient": slope.tolist()}
    return result


def bradley_terry():
    """reward_trainer.py: compute_loss with margins and center_rewards_coefficient."""
    chosen, rejected = rounded(12, scale=3.0).requires_grad_(), rounded(12, scale=3.0).requires_grad_()
    margin, center = rounded(12).abs(), 0.01
    loss = -torch.nn.functional.logsigmoid(chosen - rejected - margin).mean()
    loss = loss + center * torch.mean((chosen + rejected) ** 2)
    by_chosen, by_rejected = gradient(loss, [chosen, rejected])
    return lists(chosen=chosen, rejected=rejected, margin=margin, center_coef=center, loss=loss,
                 chosen_gradient=by_chosen, rejected_gradient=by_rejected)


def preference():
    """dpo_trainer.py: loss types sigmoid, exo_pair's weighted form (as label smoothing in cpo_trainer.py), robust and ipo, of
    log-probs that are sums or means; cpo_trainer.py: simpo; orpo_trainer.py: `log1mexp` is TRL's own, `odds_ratio_loss` and
    the loss around it are transcribed. NeMo-Aligner's rpo_* losses by torch's kl_div, with autograd."""
    from trl.experimental.orpo.orpo_trainer import log1mexp

    logsigmoid = torch.nn.functional.logsigmoid
    beta, smoothing, gamma, margin = 0.3, 0.1, 0.7, rounded(16).abs()
    gap, reward_gap = rounded(16, scale=8.0).requires_grad_(), rounded(16, scale=2.0)
    x = beta * gap
    known, ours = ([logsigmoid(z), logsigmoid(-z)] for z in (reward_gap, x))
    kl = lambda p, q: sum(torch.nn.functional.kl_div(b, a, reduction="none", log_target=True) for a, b in zip(p, q))
    clean, flipped = -(1 - smoothing) * logsigmoid(x), -smoothing * logsigmoid(-x)
    shifted = gap - gamma / beta
    losses = {
        "dpo": -logsigmoid(x),
        "cdpo": clean + flipped,
        "odpo": -logsigmoid(x - margin),
        "robust": (clean - flipped) / (1 - 2 * smoothing),
        "ipo": (gap - 1 / (2 * beta)) ** 2,
        "rpo_sq": (x - reward_gap) ** 2,
        "rpo_fwd_kl": kl(ours, known),
        "rpo_bwd_kl": kl(known, ours),
        "simpo": -logsigmoid(beta * shifted) * (1 - smoothing) - logsigmoid(-beta * shifted) * smoothing,
    }
    result = lists(gap=gap, reward_gap=reward_gap, margin=margin, beta=beta, smoothing=smoothing, gamma=gamma)
    for name, loss in losses.items():
        slope, = torch.autograd.grad(loss.sum(), [gap], retain_graph=True)
        result[name] = lists(loss=loss, gradient=slope)
    chosen, rejected = ((-rounded(16).abs() - 0.01).float().double().requires_grad_() for _ in range(2))
    log_odds = (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))
    loss = -chosen - beta * logsigmoid(log_odds)
    by_chosen, by_rejected = gradient(loss.sum(), [chosen, rejected])
    return result | {"orpo": lists(chosen=chosen, rejected=rejected, loss=loss, chosen_gradient=by_chosen,
                                   rejected_gradient=by_rejected)}


def cross_entropy():
    """ppo_trainer.py: log-probs and entropy at a temperature (without its 1e-7), and torch's cross-entropy."""
    logits, temperature = rounded(6, 11, scale=3.0).requires_grad_(), 0.7
    targets = torch.randint(0, 11, (6,))
    scaled = logits / temperature
    loss = torch.nn.functional.cross_entropy(scaled, targets)
    entropy = (torch.logsumexp(scaled, dim=-1) - torch.sum(torch.softmax(scaled, dim=-1) * scaled, dim=-1))
    (slope,) = torch.autograd.grad(loss, [logits], retain_graph=True)
    (entropy_slope,) = gradient(entropy.sum(), [logits])
    return lists(logits=logits, targets=targets, temperature=temperature, loss=loss, gradient=slope,
                 entropy=entropy, entropy_gradient=entropy_slope)


def unpaired():
    """trl/trainer/kto_trainer.py: kl, chosen_losses, rejected_losses and their mean; loss types kto and apo_zero_unpaired. Once
    with mismatched completions that have become more likely, and once with such that have become less, where kl is 0."""
    beta, good, bad = 0.3, 1.0, 1.5
    ref, desirable = -rounded(12, scale=20.0).abs(), torch.arange(12) % 3 > 0
    logprobs = (ref + rounded(12, scale=4.0)).float().double().requires_grad_()
    result = lists(logprobs=logprobs, ref_logprobs=ref, desirable=desirable, beta=beta, desirable_weight=good,
                   undesirable_weight=bad)
    ratios, sigmoid = logprobs - ref, torch.nn.functional.sigmoid
    for name, shift in {"kto": 1.0, "kto_clamped": -9.0, "apo_zero_unpaired": None}.items():
        moved = torch.zeros(12) if shift is None else rounded(12) + shift
        kl = moved.mean().clamp(min=0)
        chosen = 1 - sigmoid(beta * (ratios[desirable] - kl))
        rejected = 1 - sigmoid(beta * (kl - ratios[~desirable]))
        if shift is None:
            chosen, rejected = 1 - sigmoid(beta * ratios[desirable]), sigmoid(beta * ratios[~desirable])
        loss = torch.cat((good * chosen, bad * rejected), 0).nanmean()
        slope, = torch.autograd.grad(loss, [logprobs], retain_graph=True)
        result[name] = lists(moved=moved, kl=kl, loss=loss, gradient=slope)
    return result


cases = {
    "made_by": {"torch": "2.11.0", "trl": trl.__version__},
    "surrogate": surrogate(),
    "value": value(),
    "gae": gae(),
    "kl": kl(),
    "bradley_terry": bradley_terry(),
    "cross_entropy": cross_entropy(),
    "preference": preference(),
    "unpaired": unpaired(),
}
text = ",\n".join(f" {json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items())
(pathlib.Path(__file__).parent / "losses.json").write_text("{\n" + text + "\n}\n")
