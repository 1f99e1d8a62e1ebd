// The weight explorer: NDCG per objective under other weights, from predictions and labels that the page holds.
// It repeats `mmoe_ranker.combined_score.ranking_key` and `mmoe_ranker.metrics.ndcg` in double precision.
"use strict";

(() => {
  const holder = document.getElementById("explorer-data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const objectives = data.objectives;
  const count = objectives.length;
  const element = (id) => document.getElementById(id);

  // ---- the sample: N impressions of R requests, column by column

  function bytesOf(base64) {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
  }

  function labelsOf(objective) {
    if (objective.label_type === "float32") return Float64Array.from(new Float32Array(bytesOf(objective.labels)));
    return Float64Array.from(new Uint8Array(bytesOf(objective.labels)), (label) => (label === 255 ? NaN : label));
  }

  // [N]: the term without its weight, which no slider changes.
  function factorOf(objective) {
    const predictions = new Float32Array(bytesOf(objective.predictions));
    return Float64Array.from(predictions, (prediction) => {
      const factor = (objective.complement ? 1 - prediction : prediction) + objective.offset;
      return data.form === "weighted_product" ? Math.log(Math.max(factor, data.epsilon)) : factor;
    });
  }

  const sizes = new Uint32Array(bytesOf(data.sizes));
  const starts = new Uint32Array(sizes.length + 1);
  sizes.forEach((size, request) => (starts[request + 1] = starts[request] + size));
  const rows = starts[sizes.length];
  const labels = objectives.map(labelsOf);
  const factors = objectives.map(factorOf);
  const discounts = Float64Array.from({ length: sizes.reduce((longest, size) => Math.max(longest, size), 0) }, (_, rank) =>
    rank < data.k ? 1 / Math.log2(2 + rank) : 0,
  );
  const ideals = labels.map(idealOf);

  // [R]: the DCG of the best order.
  function idealOf(column) {
    return Float64Array.from(sizes, (_, request) => {
      const gains = column.slice(starts[request], starts[request + 1]).filter((label) => !Number.isNaN(label));
      return gains.sort().reverse().reduce((sum, gain, rank) => sum + gain * discounts[rank], 0);
    });
  }

  // ---- the formulas

  const keys = new Float64Array(rows);
  const order = Uint32Array.from({ length: rows }, (_, row) => row);

  function rank(weights) {
    keys.fill(0);
    weights.forEach((weight, place) => {
      if (weight === 0) return;
      const factor = factors[place];
      for (let row = 0; row < rows; row++) keys[row] += weight * factor[row];
    });
    for (let request = 0; request < sizes.length; request++) {
      order.subarray(starts[request], starts[request + 1]).sort((one, other) => keys[other] - keys[one]);
    }
  }

  // [R], of the order that `rank` left; NaN for a request without a positive label. Equal keys share their discounts.
  function ndcgOf(place) {
    const column = labels[place];
    return Float64Array.from(sizes, (_, request) => {
      if (!(ideals[place][request] > 0)) return NaN;
      let dcg = 0;
      let rank = 0;
      for (let first = starts[request]; first < starts[request + 1]; ) {
        let gains = 0;
        let discount = 0;
        let tied = 0;
        let next = first;
        for (; next < starts[request + 1] && keys[order[next]] === keys[order[first]]; next++) {
          const label = column[order[next]];
          if (Number.isNaN(label)) continue;
          gains += label;
          discount += discounts[rank + tied];
          tied += 1;
        }
        if (tied) dcg += (gains * discount) / tied;
        rank += tied;
        first = next;
      }
      return dcg / ideals[place][request];
    });
  }

  // Mean, number of requests that count, and half the width of a 95 % interval of the mean.
  function meanOf(values) {
    const counted = values.filter((value) => !Number.isNaN(value));
    const mean = counted.reduce((sum, value) => sum + value, 0) / counted.length;
    const squares = counted.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return { mean, counted: counted.length, half: 1.96 * Math.sqrt(squares / (counted.length - 1) / counted.length) };
  }

  function evaluate(weights) {
    rank(weights);
    return objectives.map((objective, place) => (objective.ranked ? ndcgOf(place) : null));
  }

  // ---- state: exact numbers, since a slider would round the config's

  const initial = objectives.map((objective) => objective.weight);
  let weights = initial.slice();
  const before = evaluate(initial);
  const ranked = objectives.map((_, place) => place).filter((place) => before[place]);
  let now = before;

  function digits(value) {
    return Number.isFinite(value) ? value.toFixed(4) : "–";
  }

  function signed(value) {
    return Number.isFinite(value) ? (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4) : "–";
  }

  // As `mmoe_ranker.weight_report.score_block` writes it.
  function yaml() {
    // YAML wants a point in a number with an exponent.
    const number = (value) => (/^-?\d+$/.test(String(value)) ? `${value}.0` : String(value).replace(/^(-?\d+)e/, "$1.0e"));
    const lines = objectives.flatMap((objective, place) => {
      if (weights[place] === 0 && !objective.in_config) return [];
      const { key, offset, complement } = objective;
      return [`    ${key}: {weight: ${number(weights[place])}, offset: ${number(offset)}, complement: ${complement}}`];
    });
    return ["combined_score:", `  form: ${data.form}`, "  terms:", ...lines, ""].join("\n");
  }

  function showTable() {
    for (const place of ranked) {
      const row = element(`ndcg-${place}`);
      const change = meanOf(now[place].map((value, request) => value - before[place][request]));
      const [, config, current, delta, interval, requests] = row.cells;
      config.textContent = digits(meanOf(before[place]).mean);
      current.textContent = digits(meanOf(now[place]).mean);
      current.dataset.value = meanOf(now[place]).mean;
      delta.textContent = signed(change.mean);
      interval.textContent = digits(change.half);
      const seen = Math.abs(change.mean) > change.half;
      const better = objectives[place].lower_is_better ? change.mean < 0 : change.mean > 0;
      requests.textContent = change.counted.toLocaleString("en");
      row.className = seen ? (better ? "better" : "worse") : "";
    }
  }

  // ---- the Pareto plot

  const svg = element("pareto");
  const box = { left: 56, right: 12, top: 10, bottom: 42, width: 430, height: 330 };

  function draw(name, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  // Steps of 1, 2 or 5 times a power of ten.
  function ticksOf(low, high) {
    const rough = (high - low) / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const first = Math.ceil(low / step);
    const ticks = Array.from({ length: Math.floor(high / step) - first + 1 }, (_, place) => (first + place) * step);
    return { ticks, decimals: Math.max(0, -Math.floor(Math.log10(step))) };
  }

  function scaleOf(values, from, to, flipped) {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const margin = (high - low || 0.01) * 0.06;
    const [start, end] = flipped ? [high + margin, low - margin] : [low - margin, high + margin];
    const place = (value) => from + ((value - start) / (end - start)) * (to - from);
    return { place, ...ticksOf(low - margin, high + margin) };
  }

  // The settings that no other beats in both objectives, from the best in x on.
  function frontOf(points, better) {
    const sorted = [...points].sort((one, other) => better.x(other.x, one.x) || better.y(other.y, one.y));
    const front = [];
    for (const point of sorted) {
      if (!front.length || better.y(point.y, front[front.length - 1].y) > 0) front.push(point);
    }
    return front;
  }

  function weightsText(vector) {
    return objectives.map((objective, place) => `${objective.name} ${+vector[place].toFixed(3)}`).join(", ");
  }

  function drawPareto() {
    if (!svg) return;
    const [x, y] = ["axis-x", "axis-y"].map((id) => Number(element(id).value));
    const swept = data.sweep.map((point) => ({ weights: point.weights, x: point.ndcg[x], y: point.ndcg[y] }));
    const config = { x: meanOf(before[x]).mean, y: meanOf(before[y]).mean };
    const current = { x: meanOf(now[x]).mean, y: meanOf(now[y]).mean };
    const sign = (place) => (objectives[place].lower_is_better ? -1 : 1);
    const better = { x: (one, other) => sign(x) * (one - other), y: (one, other) => sign(y) * (one - other) };
    const all = [...swept, config, current];
    const across = scaleOf(all.map((point) => point.x), box.left, box.width - box.right, sign(x) < 0);
    const up = scaleOf(all.map((point) => point.y), box.height - box.bottom, box.top, sign(y) < 0);
    const bottom = box.height - box.bottom;
    svg.replaceChildren();
    for (const tick of across.ticks) {
      const at = across.place(tick);
      svg.append(draw("line", { class: "plot-grid", x1: at, x2: at, y1: box.top, y2: bottom }));
      svg.append(draw("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, tick.toFixed(across.decimals)));
    }
    for (const tick of up.ticks) {
      const at = up.place(tick);
      svg.append(draw("line", { class: "plot-grid", x1: box.left, x2: box.width - box.right, y1: at, y2: at }));
      svg.append(draw("text", { x: box.left - 8, y: at + 4, "text-anchor": "end" }, tick.toFixed(up.decimals)));
    }
    const title = (place) =>
      `NDCG@${data.k} of ${objectives[place].name}` + (objectives[place].lower_is_better ? " (lower is better)" : "");
    const middle = { x: (box.left + box.width - box.right) / 2, y: (box.top + bottom) / 2 };
    svg.append(draw("text", { x: middle.x, y: box.height - 8, "text-anchor": "middle" }, title(x)));
    svg.append(
      draw("text", { x: 14, y: middle.y, transform: `rotate(-90 14 ${middle.y})`, "text-anchor": "middle" }, title(y)),
    );
    const front = frontOf(swept, better);
    const path = front.map((point) => `${across.place(point.x)},${up.place(point.y)}`).join(" ");
    svg.append(draw("polyline", { class: "plot-front", points: path }));
    for (const point of swept) {
      const best = front.includes(point);
      const at = { cx: across.place(point.x), cy: up.place(point.y), r: best ? 4 : 2.5 };
      const circle = draw("circle", { ...at, class: best ? "plot-best" : "plot-point" });
      const values = `${objectives[x].name} ${digits(point.x)}, ${objectives[y].name} ${digits(point.y)}`;
      circle.append(draw("title", {}, `${values}; weights: ${weightsText(point.weights)}`));
      circle.addEventListener("click", () => setWeights(point.weights));
      svg.append(circle);
    }
    const [cx, cy] = [across.place(config.x), up.place(config.y)];
    svg.append(draw("path", { class: "plot-config", d: `M${cx} ${cy - 7}l7 7l-7 7l-7 -7z` }));
    svg.append(draw("circle", { class: "plot-current", cx: across.place(current.x), cy: up.place(current.y), r: 8 }));
    const beaten = swept.filter((point) => {
      const [right, above] = [better.x(point.x, current.x), better.y(point.y, current.y)];
      // Rounding tells nothing apart: the config is a setting too, computed elsewhere.
      return right > -1e-9 && above > -1e-9 && right + above > 1e-9;
    }).length;
    element("pareto-note").textContent = beaten
      ? `${beaten} of the ${swept.length} settings are at least as good as these weights in both objectives, and better in one.`
      : `None of the ${swept.length} settings beats these weights in both objectives.`;
  }

  // ---- the controls

  function show(moved) {
    objectives.forEach((_, place) => {
      const [slider, number] = [element(`slider-${place}`), element(`weight-${place}`)];
      if (moved !== slider) slider.value = weights[place];
      if (moved !== number) number.value = +weights[place].toPrecision(6);
      slider.setAttribute("aria-valuetext", `${objectives[place].name} ${+weights[place].toPrecision(6)}`);
    });
    element("explorer-yaml").textContent = yaml();
    element("copied").textContent = "";
    now = evaluate(weights);
    showTable();
    drawPareto();
  }

  function setWeights(vector) {
    weights = vector.slice();
    show();
  }

  objectives.forEach((objective, place) => {
    for (const id of [`slider-${place}`, `weight-${place}`]) {
      element(id).addEventListener("input", (event) => {
        const weight = event.target.valueAsNumber;
        if (!Number.isFinite(weight) || (objective.complement && weight < 0)) return;
        weights[place] = weight;
        show(event.target);
      });
      element(id).addEventListener("change", () => show());
    }
  });

  element("explorer-reset").addEventListener("click", () => setWeights(initial));
  for (const id of ["axis-x", "axis-y"]) element(id)?.addEventListener("change", drawPareto);
  for (const button of document.querySelectorAll("[data-weights]")) {
    button.addEventListener("click", () => setWeights(button.dataset.weights.split(" ").map(Number)));
  }
  element("explorer").classList.add("ready");
  show();
})();
