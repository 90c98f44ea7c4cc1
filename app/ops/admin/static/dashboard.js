// Keeps the page live: fetches its main part again and again, and changes only what differs.
"use strict";
(() => {
  const EVERY = 2000;
  const main = document.getElementById("main");
  const pulse = document.getElementById("pulse");
  const say = document.getElementById("say");
  const token = document.body.dataset.token;
  let skew = 0; // server's clock minus ours, in milliseconds
  let etag = "";
  let timer = 0;
  let asking = null;

  // Times

  const clock = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
  });
  const dated = new Intl.DateTimeFormat(undefined, {
    weekday: "short", day: "numeric", month: "short",
    hour: "2-digit", minute: "2-digit", hourCycle: "h23",
  });
  const full = new Intl.DateTimeFormat(undefined, {
    dateStyle: "medium", timeStyle: "long",
  });

  const two = (number) => String(number).padStart(2, "0");

  const span = (seconds) => {
    const left = Math.max(0, Math.ceil(seconds));
    const hours = Math.floor(left / 3600);
    const minutes = Math.floor((left % 3600) / 60);
    if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
    if (hours) return `${hours} h ${two(minutes)} min`;
    return `${minutes}:${two(left % 60)}`;
  };

  const put = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  const tick = () => {
    const now = Date.now() + skew;
    for (const element of document.querySelectorAll("time[data-until]")) {
      const left = Number(element.dataset.until) - now / 1000;
      put(element, left > 0 ? span(left) : "a moment");
    }
    for (const element of document.querySelectorAll("time[data-since]")) {
      put(element, `${Math.max(0, now / 1000 - Number(element.dataset.since)).toFixed(1)} s`);
    }
  };

  const localise = () => {
    const today = new Date().toDateString();
    for (const element of document.querySelectorAll("time[data-form]")) {
      const at = new Date(element.dateTime);
      const near = at.toDateString() === today;
      put(element, element.dataset.form === "full" ? full.format(at) : (near ? clock : dated).format(at));
      const exact = `${full.format(at)} (${element.dateTime})`;
      if (element.title !== exact) element.title = exact;
    }
  };

  // Changing the page into its next version, without disturbing focus, scrolling or what is open

  const key = (node) => (node.nodeType === 1 ? node.id || node.dataset.key || "" : "");

  const same = (a, b) =>
    a.nodeType === b.nodeType && a.nodeName === b.nodeName && key(a) === key(b);

  const morph = (old, fresh) => {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    if (old.hasAttribute("data-keep") || old.isEqualNode(fresh)) return;
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    if (old.nodeName === "TIME") {
      // Its text is told by this script, in the viewer's time.
      if (fresh.hasAttribute("data-form") || fresh.hasAttribute("data-until") || fresh.hasAttribute("data-since")) return;
    }
    const keyed = new Map();
    for (const child of old.childNodes) if (key(child)) keyed.set(key(child), child);
    let next = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      let match = key(wanted) ? keyed.get(key(wanted)) : next;
      if (match && !same(match, wanted)) match = null;
      if (match) {
        if (match === next) next = next.nextSibling;
        else old.insertBefore(match, next);
        morph(match, wanted);
      } else {
        old.insertBefore(wanted, next);
      }
    }
    while (next) {
      const gone = next;
      next = next.nextSibling;
      gone.remove();
    }
  };

  // Asking

  const show = (state, words) => {
    pulse.dataset.state = state;
    put(pulse.querySelector("span"), words);
  };

  const refresh = async () => {
    clearTimeout(timer);
    if (document.hidden) {
      show("off", "Paused");
      return;
    }
    asking?.abort();
    asking = new AbortController();
    const mine = asking;
    const limit = setTimeout(() => mine.abort(), 10000);
    try {
      const headers = { "x-part": "main", accept: "text/html" };
      if (etag) headers["if-none-match"] = etag;
      const answer = await fetch(location.href, { headers, cache: "no-store", signal: mine.signal });
      const now = Number(answer.headers.get("x-now"));
      if (now) skew = now * 1000 - Date.now();
      if (answer.status === 200) {
        const text = await answer.text();
        const fresh = document.createElement("main");
        fresh.append(document.createRange().createContextualFragment(text));
        for (const { name, value } of main.attributes) fresh.setAttribute(name, value);
        etag = answer.headers.get("etag") || "";
        morph(main, fresh);
        localise();
        tick();
      }
      if (answer.status === 401) {
        show("bad", "Logged out");
        announce("You are logged out. Reload the page to log in again.", false);
        return;
      }
      if (answer.ok || answer.status === 304) show("on", "Live");
      else show("bad", `Error ${answer.status}`);
    } catch (error) {
      if (mine !== asking) return; // a newer one is under way
      show("bad", "No connection");
    } finally {
      clearTimeout(limit);
    }
    timer = setTimeout(refresh, EVERY);
  };

  // Actions

  let hiding = 0;
  const announce = (text, good) => {
    say.dataset.good = String(good);
    say.textContent = text;
    say.classList.add("shown");
    clearTimeout(hiding);
    hiding = setTimeout(() => say.classList.remove("shown"), 7000);
  };

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    const address = form.dataset.act;
    if (!address) return;
    event.preventDefault();
    const button = form.querySelector("button");
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(address, {
        method: "POST",
        headers: { "x-form-token": token, accept: "application/json" },
      });
      const said = await answer.json();
      announce(said.message || said.error?.message || `Error ${answer.status}`, Boolean(said.ok));
    } catch {
      announce("The gateway could not be reached; nothing was changed.", false);
    }
    button.removeAttribute("aria-busy");
    const stood = document.activeElement === button;
    const home = button.closest("[data-key], article");
    etag = "";
    await refresh();
    // The button may be gone (Disable turns into Enable): stay where the keyboard was.
    if (stood && !button.isConnected) home?.querySelector(".actions button")?.focus();
  });

  document.addEventListener("visibilitychange", refresh);
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.nodeName);
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = document.querySelector('input[type="search"]');
    if (!field) return;
    event.preventDefault();
    field.focus();
  });

  localise();
  tick();
  setInterval(tick, 200);
  if (main.hasAttribute("data-live")) refresh();
})();
