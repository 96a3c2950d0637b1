#!/usr/bin/env python3
"""Draws a PPO run's reward and KL as an SVG.

    python3 docs/plot_run.py runs/demo/ppo/metrics.jsonl docs/demo.svg
"""

import json
import sys

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 760, 250, 52, 36, 40, 70
CURVES = [("objective/scores", "reward model's score", "#1f6feb"), ("objective/kl", "KL from the reference, nats", "#d1242f")]


def curve(rows, name, label, colour, left, width):
    values = [row[name] for row in rows]
    low, high = min(0, *values), max(values)
    x = lambda i: left + width * i / max(1, len(values) - 1)
    y = lambda v: TOP + (HEIGHT - TOP - BOTTOM) * (1 - (v - low) / ((high - low) or 1))
    points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
    parts = [f'<text x="{left}" y="20" font-weight="600">{label}</text>']
    for tick in (low, (low + high) / 2, high):
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#8884"/>')
        parts.append(f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.1f}</text>')
    for i in (0, len(values) - 1):
        parts.append(f'<text x="{x(i):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{i + 1}</text>')
    parts.append(f'<text x="{left + width / 2:.1f}" y="{HEIGHT - 18}" text-anchor="middle">iteration</text>')
    parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
    return "\n".join(parts)


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    width = (WIDTH - LEFT - GAP - 20) / len(CURVES)
    drawn = [curve(rows, *each, LEFT + i * (width + GAP), width) for i, each in enumerate(CURVES)]
    with open(target, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
                   f'font-size="13" fill="#57606a">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
                   + "\n".join(drawn) + "\n</svg>\n")


if __name__ == "__main__":
    main()
