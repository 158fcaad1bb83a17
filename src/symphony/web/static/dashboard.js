// Keeps the dashboard live: takes rendered fragments from /live and changes only what differs, so
// that focus, selection and scroll positions stay. Counts ages on between fragments.
"use strict";
(() => {
  const board = document.getElementById("live");
  const link = document.getElementById("link");
  const linkText = document.getElementById("link-text");
  // Ages are told by the server's clock, whatever this machine's says.
  const skew = Date.now() / 1000 - Number(document.body.dataset.now);

  const sameKind = (a, b) =>
    a.nodeType === b.nodeType && a.nodeName === b.nodeName &&
    (a.nodeType !== Node.ELEMENT_NODE || a.dataset.key === b.dataset.key);

  function matchAttributes(from, to) {
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name)) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
  }

  function matchChildren(from, to) {
    let old = from.firstChild;
    for (const fresh of [...to.childNodes]) {
      const key = fresh.dataset?.key;
      if (key !== undefined && old?.dataset?.key !== key) {
        const moved = [...from.children].find((child) => child.dataset.key === key);
        if (moved && old) from.insertBefore(moved, old), (old = moved);
      }
      if (old && sameKind(old, fresh)) {
        const next = old.nextSibling;
        match(old, fresh);
        old = next;
      } else {
        from.insertBefore(fresh, old);
      }
    }
    while (old) {
      const next = old.nextSibling;
      old.remove();
      old = next;
    }
  }

  function match(from, to) {
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    // A button that tells of its click keeps its word until it is through.
    if (from.hasAttribute("data-held")) return;
    matchAttributes(from, to);
    matchChildren(from, to);
  }

  const duration = (s) => `${Math.floor(s / 60)}m ${Math.floor(s % 60)}s`;
  function wait(seconds) {
    const s = Math.max(0, Math.ceil(seconds));
    if (s <= 120) return `${s}s`;
    const m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
    if (m < 60) return `${m}m`;
    const [whole, rest] = h < 24 ? [`${h}h`, `${m % 60}m`] : [`${d}d`, `${h % 24}h`];
    return parseInt(rest) ? `${whole} ${rest}` : whole;
  }
  const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };

  let arrived = Date.now() / 1000;
  function tick() {
    const now = Date.now() / 1000;
    const there = now - skew;
    for (const node of board.querySelectorAll("[data-ago]")) say(node, wait(there - node.dataset.ago));
    for (const node of board.querySelectorAll("[data-since]")) say(node, duration(Math.max(0, there - node.dataset.since)));
    for (const node of board.querySelectorAll("[data-due]")) {
      const left = node.dataset.due - there;
      say(node, left > 0 ? wait(left) : "now");
    }
    for (const node of board.querySelectorAll("[data-total]")) {
      say(node, duration(Number(node.dataset.total) + (now - arrived) * node.dataset.rate));
    }
  }

  function show(state, text) {
    link.dataset.state = state;
    say(linkText, text);
  }

  function connect() {
    const source = new EventSource("/live");
    source.addEventListener("open", () => show("live", "Live"));
    source.addEventListener("error", () => show("offline", "Offline, trying again"));
    source.addEventListener("dashboard", (event) => {
      const fresh = document.createElement("template");
      fresh.innerHTML = event.data;
      matchChildren(board, fresh.content);
      arrived = Date.now() / 1000;
      tick();
    });
    addEventListener("pagehide", () => source.close());
    addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
    // The browser gives up for good after some answers, such as a proxy's error page.
    setInterval(() => {
      if (source.readyState === EventSource.CLOSED) location.reload();
    }, 10000);
  }

  async function copy(text) {
    try {
      return await navigator.clipboard.writeText(text);
    } catch {
      // Off a secure origin, or without the permission, there is only the old way.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      if (!done) throw new Error("copy refused");
    }
  }

  board.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button || button.hasAttribute("data-held")) return;
    const label = button.querySelector(".copied");
    button.dataset.held = "";
    try {
      await copy(button.dataset.copy);
      say(label, "copied");
      button.classList.add("done");
    } catch {
      say(label, "failed");
    }
    button.focus();
    setTimeout(() => {
      say(label, "copy");
      button.classList.remove("done");
      delete button.dataset.held;
    }, 1200);
  });

  connect();
  setInterval(tick, 1000);
})();
