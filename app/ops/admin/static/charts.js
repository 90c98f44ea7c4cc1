// The charts: drawn by uPlot, and told in a table for who can't see them.
"use strict";
(() => {
  const section = document.getElementById("charts");
  if (!section || typeof uPlot === "undefined") return;
  const EVERY = 10000;
  const plots = new Map();
  let range = "1h";
  let data = null;
  let etag = "";
  let timer = 0;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const short = (value) => {
    if (value == null) return "—";
    if (value >= 1e6) return `${+(value / 1e6).toFixed(1)}M`;
    if (value >= 1e3) return `${+(value / 1e3).toFixed(1)}k`;
    return String(+value.toFixed(value < 10 ? 1 : 0));
  };
  const lasting = (ms) => {
    if (ms == null) return "—";
    return ms < 1000 ? `${Math.round(ms)} ms` : `${+(ms / 1000).toFixed(1)} s`;
  };

  // Each series: its label, its colour, its values. Bars are stacked, the last on top.
  const KINDS = {
    requests: {
      stacked: true,
      unit: short,
      series: (d) => [
        ["answered", "--good", d.ok],
        ["client’s doing", "--idle", d.other],
        ["out of quota", "--warn", d.refused],
        ["failed", "--bad", d.failed],
      ],
    },
    tokens: {
      stacked: true,
      unit: short,
      series: (d) => [
        ["in", "--accent", d.input_tokens],
        ["cached", "--accent-soft", d.cached_tokens],
        ["out", "--second", d.output_tokens],
      ],
    },
    wait: {
      stacked: false,
      unit: lasting,
      series: (d) => [
        ["p50", "--accent", d.first_event_ms.p50],
        ["p95", "--second", d.first_event_ms.p95],
      ],
    },
  };

  const stacked = (rows) => {
    const sums = [];
    rows.forEach((row, index) => {
      sums.push(row.map((value, at) => value + (index ? sums[index - 1][at] : 0)));
    });
    return sums;
  };

  const axis = (unit) => ({
    stroke: colour("--muted"),
    font: "11px system-ui, sans-serif",
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    ...(unit ? { values: (_, values) => values.map(unit), size: 50, gap: 4 } : { space: 60, size: 26 }),
  });

  const options = (kind, shown, width) => ({
    width,
    height: 150,
    padding: [10, 10, 0, 0],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    legend: { show: false },
    scales: {
      x: { time: true },
      y: { range: (_, low, high) => [0, Math.max(high || 0, kind.unit === short ? 4 : 100) * 1.1] },
    },
    axes: [
      {
        ...axis(),
        values: (_, values) => values.map((at) => new Date(at * 1000).toLocaleTimeString(undefined, {
          hour: "2-digit", minute: "2-digit", hourCycle: "h23",
        })),
      },
      axis(kind.unit),
    ],
    series: [
      {},
      ...shown.map(([label, name]) => ({
        label,
        stroke: colour(name),
        fill: kind.stacked ? colour(name) : undefined,
        width: kind.stacked ? 0 : 2,
        spanGaps: false,
        paths: kind.stacked ? uPlot.paths.bars({ size: [0.8, 18], gap: 1 }) : undefined,
        points: { show: !kind.stacked, size: 5 },
      })),
    ],
    hooks: { setCursor: [(plot) => legend(plot)] },
  });

  const legend = (plot) => {
    const { figure, kind, rows } = plot.told;
    const at = plot.cursor.idx;
    for (const [index, item] of [...figure.querySelector(".legend").children].entries()) {
      const value = at == null ? null : rows[index][2][at];
      item.querySelector("b").textContent = at == null ? "" : ` ${kind.unit(value)}`;
    }
  };

  const draw = (figure) => {
    const kind = KINDS[figure.dataset.plot];
    const rows = kind.series(data);
    const canvas = figure.querySelector(".canvas");
    plots.get(figure)?.destroy();
    const marks = figure.querySelector(".legend");
    marks.replaceChildren(...rows.map(([label, name]) => {
      const item = document.createElement("span");
      item.className = `mark ${name.slice(2)}`;
      item.append(label, document.createElement("b"));
      return item;
    }));
    const values = kind.stacked ? stacked(rows.map((row) => row[2])) : rows.map((row) => row[2]);
    // Of stacked bars the highest is drawn first, and the others over it.
    const order = kind.stacked ? rows.map((_, index) => rows.length - 1 - index) : rows.map((_, index) => index);
    const plot = new uPlot(
      options(kind, order.map((index) => rows[index]), canvas.clientWidth),
      [data.starts, ...order.map((index) => values[index])],
      canvas,
    );
    plot.told = { figure, kind, rows };
    plots.set(figure, plot);
    tell(figure, kind, rows);
  };

  const tell = (figure, kind, rows) => {
    const any = rows.some((row) => row[2].some(Boolean));
    figure.dataset.empty = String(!any);
    const sum = kind.stacked
      ? rows.map(([label, , values]) => `${short(values.reduce((a, b) => a + b, 0))} ${label}`).join(", ")
      : rows.map(([label, , values]) => `${label} up to ${lasting(Math.max(0, ...values))}`).join(", ");
    const name = figure.querySelector("figcaption span").textContent;
    const over = range === "1h" ? "last hour" : "last day";
    figure.querySelector(".canvas").setAttribute("aria-label", `Chart: ${name}, ${over}: ${any ? sum : "nothing"}`);
    if (figure.querySelector("details").open) table(figure, kind, rows);
  };

  const table = (figure, kind, rows) => {
    const cell = (tag, text, scope) => {
      const element = document.createElement(tag);
      element.textContent = text;
      if (scope) element.scope = scope;
      return element;
    };
    const made = document.createElement("table");
    const caption = document.createElement("caption");
    caption.textContent = data.seconds === 60 ? "By the minute" : "By ten minutes";
    const head = document.createElement("tr");
    head.append(cell("th", "From", "col"), ...rows.map(([label]) => cell("th", label, "col")));
    const body = data.starts
      .map((start, at) => [start, rows.map((row) => row[2][at])])
      .filter(([, values]) => values.some(Boolean))
      .reverse()
      .map(([start, values]) => {
        const row = document.createElement("tr");
        const when = new Date(start * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
        row.append(cell("th", when, "row"), ...values.map((value) => cell("td", kind.unit(value))));
        return row;
      });
    made.append(caption, head, ...body);
    figure.querySelector(".scroll").replaceChildren(body.length ? made : "Nothing in this time.");
  };

  const drawAll = () => {
    if (data) section.querySelectorAll("figure").forEach(draw);
  };

  const refresh = async () => {
    clearTimeout(timer);
    if (document.hidden) return;
    const query = new URLSearchParams({ range, account: section.dataset.account });
    try {
      const headers = etag ? { "if-none-match": etag } : {};
      const answer = await fetch(`${section.dataset.series}?${query}`, { headers, cache: "no-store" });
      if (answer.status === 200) {
        etag = answer.headers.get("etag") || "";
        data = await answer.json();
        drawAll();
      }
    } catch {
      // The page's own requests show that there is no connection.
    }
    timer = setTimeout(refresh, EVERY);
  };

  section.addEventListener("change", (event) => {
    if (event.target.name !== "range") return;
    range = event.target.value;
    etag = "";
    refresh();
  });
  section.addEventListener("toggle", (event) => {
    const figure = event.target.closest("figure");
    if (event.target.open && data) table(figure, KINDS[figure.dataset.plot], KINDS[figure.dataset.plot].series(data));
  }, true);
  new ResizeObserver(() => {
    for (const [figure, plot] of plots) {
      const width = figure.querySelector(".canvas").clientWidth;
      if (width && width !== plot.width) plot.setSize({ width, height: 150 });
    }
  }).observe(section);
  document.addEventListener("themechange", drawAll);
  document.addEventListener("visibilitychange", refresh);
  refresh();
})();
