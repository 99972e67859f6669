/* What notebook 05 lets a reader move, on a page without a kernel: weights, simplex, toy worlds.

   scripts/book.py puts a container with a class of PLAY below the stored figure that shows the same thing. Without JavaScript the
   container keeps its sentence, which points to that figure. Formulas and worlds are those of the notebook; tests/test_browser.py
   moves the controls and compares the numbers with gdrt_lite.dro. */
"use strict";
(() => {
  const LOSSES = [0.5, 1.2, 2.0];
  const RULES = ["ERM", "balanced", "GDRT", "EG", "reversed"];
  const WORLDS = {  // per group: size, and how the shortcut follows the label; 0: the labels are coin flips
    "two groups": [[380, 1], [20, -1]],
    "five groups": [[95, 1], [95, 1], [95, 1], [95, 1], [20, -1]],
    "noise": [[380, 1], [20, 0]],
  };
  const sum = (values) => values.reduce((a, b) => a + b, 0);

  // ------------------------------------------------------------------ the method

  /** Q*(g), proportional to P(g) exp(L(g) / tau). The largest exponent is taken off first, as exp overflows. */
  function groupWeights(losses, tau, prior = losses.map(() => 1 / losses.length)) {
    const top = Math.max(...losses.map((loss) => loss / tau));
    const raised = losses.map((loss, g) => prior[g] * Math.exp(loss / tau - top));
    return raised.map((value) => value / sum(raised));
  }

  /** J(Q) = sum Q L - tau KL(Q || uniform), in nats. */
  function objective(q, losses, tau) {
    return sum(q.map((w, g) => (w > 0 ? w * (losses[g] - tau * Math.log(w * losses.length)) : 0)));
  }

  // ------------------------------------------------------------------ the toy worlds

  /** Standard normal numbers and coin flips that depend on the seed alone (mulberry32, Box and Muller). */
  function randomness(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return { normal, coin: () => (uniform() < 0.5 ? -1 : 1) };
  }

  /** Examples of a world: features x (core, shortcut, two idle ones), label y, group id. */
  function sample(groups, seed) {
    const random = randomness(seed);
    return groups.flatMap(([size, side], id) => Array.from({ length: size }, () => {
      const y = random.coin();
      const meant = side === 0 ? random.coin() : y;
      return { y, id, x: [meant + random.normal(), y * side + 0.5 * random.normal(), random.normal(), random.normal()] };
    }));
  }

  const dot = (w, x) => sum(w.map((value, k) => value * x[k]));

  /** The group weights of one step, by rule. */
  function ruleWeights(rule, losses, counts, before, tau) {
    if (rule === "ERM") return counts.map((count) => count / sum(counts));
    if (rule === "balanced") return losses.map(() => 1 / losses.length);
    if (rule === "EG") return groupWeights(losses, 10, before);  // a rate of 0.1 on the weights before
    return groupWeights(rule === "reversed" ? losses.map((loss) => -loss) : losses, tau);
  }

  /** A linear classifier's four coefficients and the last group weights, after 200 steps of gradient descent. */
  function train(examples, groups, rule, tau) {
    let w = [0, 0, 0, 0], q = groups.map(() => 1 / groups.length);
    const counts = groups.map(([size]) => size);
    for (let step = 0; step < 200; step += 1) {
      const losses = groups.map(() => 0);
      const slopes = groups.map(() => [0, 0, 0, 0]);
      for (const { x, y, id } of examples) {
        const margin = y * dot(w, x);
        losses[id] += (Math.max(0, -margin) + Math.log1p(Math.exp(-Math.abs(margin)))) / counts[id];
        const pull = -y / (1 + Math.exp(margin)) / counts[id];
        x.forEach((value, k) => { slopes[id][k] += pull * value; });
      }
      q = ruleWeights(rule, losses, counts, q, tau);
      w = w.map((value, k) => value - 0.3 * sum(slopes.map((slope, g) => q[g] * slope[k])));
    }
    return { w, q };
  }

  /** The normal distribution function; Abramowitz and Stegun 7.1.26, absolute error below 1e-7. */
  function normalCdf(z) {
    const t = 1 / (1 + (0.3275911 * Math.abs(z)) / Math.SQRT2);
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    const erf = 1 - tail * Math.exp((-z * z) / 2);
    return 0.5 * (1 + Math.sign(z) * erf);
  }

  /** The exact accuracy on new data of a group: the margin is normal, and coin flips cannot be guessed. */
  function accuracy(w, side) {
    const deviation = Math.sqrt(w[0] ** 2 + 0.25 * w[1] ** 2 + w[2] ** 2 + w[3] ** 2);
    return side === 0 ? 0.5 : normalCdf((w[0] + w[1] * side) / deviation);
  }

  // ------------------------------------------------------------------ controls

  function make(tag, attributes = {}, ...children) {
    const drawn = ["svg", "circle", "line", "path", "polygon", "text", "g", "rect"].includes(tag);
    const element = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  /** A labelled slider; read() gives its number, in the unit that is shown. */
  function slider(name, [min, max, step, value], shown = (number) => number, digits = 2) {
    const input = make("input", { type: "range", min, max, step, value });
    const output = make("output");
    const read = () => shown(Number(input.value));
    const say = () => {
      output.textContent = read().toFixed(digits);
      input.setAttribute("aria-valuetext", `${output.textContent}`);
    };
    input.addEventListener("input", say);
    say();
    return { element: make("label", {}, make("span", {}, name), input, output), read, input };
  }

  const tauSlider = (value = -0.3) => slider("tau (nats)", [-1.5, 1.5, 0.05, value], (power) => 10 ** power, 3);

  function choice(name, options, value) {
    const select = make("select", {}, ...options.map((option) => make("option", {}, option)));
    select.value = value;
    return { element: make("label", {}, make("span", {}, name), select), read: () => select.value };
  }

  function table(caption, head, rows) {
    const line = (cells, tag, scope) => make("tr", {}, ...cells.map((cell, k) =>
      (tag === "th" || k === 0 ? make("th", { scope }, cell) : make("td", {}, cell))));
    return make("table", {}, make("caption", {}, caption), make("thead", {}, line(head, "th", "col")),
      make("tbody", {}, ...rows.map((row) => line(row, "td", "row"))));
  }

  /** Fill a container: title, controls, and a place that `draw` renews whenever a control moves. */
  function board(box, title, controls, draw) {
    const place = make("div", { class: "play-place" });
    const form = make("form", {}, ...controls.map((control) => control.element ?? control));
    const renew = () => place.replaceChildren(...draw());
    form.addEventListener("input", renew);
    form.addEventListener("click", renew);
    form.addEventListener("submit", (event) => event.preventDefault());
    box.replaceChildren(make("p", { class: "play-title" }, title), form, place);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", title);
    renew();
  }

  // ------------------------------------------------------------------ three boards

  function weights(box) {
    const tau = tauSlider();
    const losses = LOSSES.map((value, g) => slider(`loss of group ${g + 1} (nats)`, [0, 5, 0.1, value], undefined, 1));
    const shift = slider("add to all (nats)", [0, 5, 0.5, 0], undefined, 1);
    board(box, "Move tau, the losses, or all losses together", [tau, ...losses, shift], () => {
      const level = losses.map((loss) => loss.read() + shift.read());
      const bar = (w) => make("span", { class: "play-bar", style: `width: ${(100 * w).toFixed(2)}%` });
      return [table("Weights of Group DRO", ["group", "loss", "weight", "as a bar"], groupWeights(level, tau.read()).map(
        (w, g) => [`${g + 1}`, level[g].toFixed(1), w.toFixed(3), make("span", { class: "play-track" }, bar(w))]))];
    });
  }

  function simplex(box) {
    const corner = [[20, 190], [220, 190], [120, 17]];
    const at = (q) => [0, 1].map((axis) => sum(q.map((w, g) => w * corner[g][axis])));
    const point = (q, mark, size) => make("circle", { cx: at(q)[0], cy: at(q)[1], r: size, class: mark });
    const tau = tauSlider();
    const own = [1, 2].map((g) => slider(`your weight of group ${g}`, [0, 1, 0.01, 0.33]));
    board(box, "Be the adversary: choose weights, and compare them with the best ones", [tau, ...own], () => {
      const first = own[0].read(), second = Math.min(own[1].read(), 1 - first);
      const q = [first, second, Math.max(0, 1 - first - second)], best = groupWeights(LOSSES, tau.read());
      const powers = Array.from({ length: 121 }, (_, k) => 10 ** (1.5 - k / 40));
      const path = `M${powers.map((t) => at(groupWeights(LOSSES, t)).map((c) => c.toFixed(2)).join(" ")).join("L")}`;
      const names = LOSSES.map((loss, g) => make("text",
        { x: corner[g][0], y: g === 2 ? 10 : 206, "text-anchor": "middle" }, `${g + 1}: ${loss} nats`));
      const picture = make("svg", { viewBox: "-30 -5 300 218", role: "img", "aria-label":
        "The triangle of all weights of three groups, with a line of the best weights over tau, the best ones, and yours" },
      make("polygon", { points: corner.join(" "), class: "play-frame" }), make("path", { d: path, class: "play-path" }),
      point(best, "play-best", 6), point(q, "play-own", 5), ...names);
      const [yours, top] = [objective(q, LOSSES, tau.read()), objective(best, LOSSES, tau.read())];
      const row = (name, weight, value) => [name, ...weight.map((w) => w.toFixed(3)), value.toFixed(4)];
      return [picture, table("Weights of the three groups, and J in nats", ["who", "1", "2", "3", "J"],
        [row("best (filled)", best, top), row("yours (ring)", q, yours)]),
      make("p", {}, `Yours is ${(top - yours).toFixed(4)} nats below the top. The line shows where the top goes as tau falls.`)];
    });
  }

  function worlds(box) {
    let seed = 1;
    const world = choice("world", Object.keys(WORLDS), "five groups"), rule = choice("drawn rule", RULES, "GDRT");
    const tau = tauSlider(-1);
    const again = make("button", { type: "button" }, "Another sample");
    again.addEventListener("click", () => { seed += 1; });
    board(box, "Train five rules on a world with a shortcut", [world, rule, tau, again], () => {
      const groups = WORLDS[world.read()], examples = sample(groups, seed), last = groups.length - 1;
      const fits = Object.fromEntries(RULES.map((name) => [name, train(examples, groups, name, tau.read())]));
      const right = (name) => groups.map(([, side]) => accuracy(fits[name].w, side));
      const all = (name) => sum(right(name).map((share, g) => share * groups[g][0])) / examples.length;
      const rows = RULES.map((name) => [name,
        ...[Math.min(...right(name)), all(name), fits[name].q[last]].map((value) => value.toFixed(3))]);
      return [scatter(examples, last, fits[rule.read()].w, rule.read()), table(
        "Accuracy on new data, and the last group's weight", ["rule", "worst group", "all", "weight"], rows)];
    });
  }

  /** Core and shortcut of every example, and the line at which the rule changes its mind (idle features at zero). */
  function scatter(examples, last, w, rule) {
    const place = (x) => [150 + 36 * x[0], 110 - 36 * x[1]];
    const shape = ({ x, y, id }) => {
      const [cx, cy] = place(x), kind = `${y > 0 ? "play-plus" : "play-minus"}${id === last ? " play-last" : ""}`;
      return y > 0 ? make("circle", { cx, cy, r: id === last ? 4 : 2.5, class: kind })
        : make("rect", { x: cx - 2.5, y: cy - 2.5, width: id === last ? 8 : 5, height: id === last ? 8 : 5, class: kind });
    };
    const size = Math.hypot(w[0], w[1]), [dx, dy] = [(-9 * w[1]) / size, (9 * w[0]) / size];
    const [[x1, y1], [x2, y2]] = [place([dx, dy]), place([-dx, -dy])];
    const said = `Examples by core and shortcut, and the decision line of ${rule}`;
    return make("svg", { viewBox: "0 0 300 220", role: "img", "aria-label": said },
      ...examples.map(shape), make("line", { x1, y1, x2, y2, class: "play-line" }),
      make("text", { x: 296, y: 106, "text-anchor": "end" }, "core →"), make("text", { x: 153, y: 10 }, "↑ shortcut"),
      make("text", { x: 4, y: 216 }, "circle: +1, square: −1; large: last group"));
  }

  const PLAY = { "play-weights": weights, "play-simplex": simplex, "play-worlds": worlds };
  window.gdrtPlay = { groupWeights, objective, sample, train, accuracy, WORLDS };
  document.addEventListener("DOMContentLoaded", () => {
    for (const [name, fill] of Object.entries(PLAY)) document.querySelectorAll(`.${name}`).forEach(fill);
  });
})();
