/* What the auditor's pages can do better with a script. All of them work without it. */
"use strict";

(() => {
  const STORE = "broker-audit-views";
  const MOST_VIEWS = 40;
  const MOST_LIVE = 200;

  const main = () => document.getElementById("main");
  const isPlain = (event) => !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button);

  /* ---- filters, pages of the list and bars of the chart, without loading the whole page anew */

  const place = () => location.pathname + location.search;
  const placeOf = (address) => new URL(address).pathname + new URL(address).search;
  let asking = null;
  let shown = place();

  async function show(address, { push, focus }) {
    if (asking) asking.abort();
    asking = new AbortController();
    const signal = asking.signal;
    const before = { values: new Map(parts().map((part) => [part.id, part.value])), focused: document.activeElement };
    main().classList.add("busy");
    try {
      const answer = await fetch(address, { headers: { Accept: "text/html" }, signal });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.getElementById("main");
      if (!next) throw new Error("not a page of ours");
      // Who went back and forth again is elsewhere by now.
      if (!push && place() !== placeOf(address)) return;
      if (push) history.pushState(null, "", answer.url);
      shown = place();
      document.title = page.title;
      const later = touchedSince(before);
      const isOutside = hasLeftFor(document.activeElement, before);
      const isUnfolded = Boolean(document.getElementById("further")?.open);
      replace(next.childNodes);
      begin();
      if (isUnfolded) document.getElementById("further")?.setAttribute("open", "");
      if (!isOutside) refocus(focus);
      restore(later);
      say();
    } catch (problem) {
      if (problem.name !== "AbortError") location.assign(address);
    } finally {
      if (!signal.aborted) main().classList.remove("busy");
    }
  }

  /* A field that is taken away with what was written in it says that it changed. */
  let isReplacing = false;
  function replace(nodes) {
    isReplacing = true;
    main().replaceChildren(...nodes);
    isReplacing = false;
  }

  const parts = () => [...main().querySelectorAll(":is(input, select, summary)[id]")];

  /* An answer may take a while; what somebody writes meanwhile, and where the focus goes, outlives it. */
  function touchedSince({ values, focused }) {
    const active = document.activeElement;
    return parts()
      .map((part) => ({ part, isChanged: part.value !== values.get(part.id) }))
      .map(({ part, isChanged }) => ({
        id: part.id,
        isChanged,
        value: part.value,
        isFocused: part === active && (isChanged || active !== focused),
        caret: part.selectionStart,
      }))
      .filter(({ isChanged, isFocused }) => isChanged || isFocused);
  }

  function restore(later) {
    for (const { id, isChanged, value, isFocused, caret } of later) {
      const part = document.getElementById(id);
      if (!part) continue;
      if (part.localName !== "summary") part.closest("details")?.setAttribute("open", "");
      if (isChanged) write(part, value);
      if (isFocused) part.focus({ preventScroll: true });
      if (isFocused && typeof caret === "number") part.setSelectionRange(caret, caret);
    }
  }

  /* A browser does not tell later that what a script has put in a field was written by somebody. */
  function write(part, value) {
    part.value = value;
    if (!part.form?.matches("form[data-swap]")) return;
    part.addEventListener("blur", () => !isReplacing && part.isConnected && part.form.requestSubmit(), { once: true });
  }

  /* Whether the focus has gone meanwhile to what no answer replaces. */
  function hasLeftFor(active, { focused }) {
    return active !== focused && active !== document.body && !main().contains(active);
  }

  function refocus(focus) {
    const target = (focus && document.getElementById(focus)) || document.getElementById("results") || main();
    target.focus({ preventScroll: target.id !== "results" });
  }

  function say() {
    const said = document.getElementById("said");
    const rows = document.querySelectorAll("#records tbody tr").length;
    if (said) said.textContent = rows ? `${rows} records shown.` : "No record meets these filters.";
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-swap]");
    if (!link || !isPlain(event)) return;
    event.preventDefault();
    const address = typeof link.href === "string" ? link.href : link.href.baseVal;
    show(new URL(address, location.href), { push: true });
  });

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-swap]")) return;
    event.preventDefault();
    const address = new URL(form.action);
    address.search = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim())).toString();
    show(address, { push: true, focus: document.activeElement && document.activeElement.id });
  });

  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (!isReplacing && form && form.matches("form[data-swap]")) form.requestSubmit();
  });

  window.addEventListener("popstate", () => {
    // A link within the page is no other page.
    if (place() !== shown) show(location.href, { push: false });
  });

  /* ---- views of one's own, kept in this browser alone */

  function views() {
    try {
      const kept = JSON.parse(localStorage.getItem(STORE) || "[]");
      return kept.filter((one) => typeof one.name === "string" && typeof one.query === "string").slice(0, MOST_VIEWS);
    } catch {
      return [];
    }
  }

  function keep(found) {
    try {
      localStorage.setItem(STORE, JSON.stringify(found.slice(0, MOST_VIEWS)));
    } catch {
      /* A browser that keeps nothing shows none. */
    }
    showViews();
  }

  function showViews() {
    const section = document.getElementById("own-views");
    if (!section) return;
    section.hidden = false;
    section.querySelector("ul").replaceChildren(
      ...views().map((one) => {
        const item = document.createElement("li");
        const link = document.createElement("a");
        link.className = "chip";
        link.href = `/audit${one.query}`;
        link.dataset.swap = "";
        link.textContent = one.name;
        if (one.query === location.search) link.setAttribute("aria-current", "true");
        const remove = document.createElement("button");
        remove.type = "button";
        remove.textContent = "×";
        remove.setAttribute("aria-label", `Forget the view ${one.name}`);
        remove.addEventListener("click", () => keep(views().filter((other) => other.name !== one.name)));
        item.append(link, remove);
        return item;
      }),
    );
  }

  function beginViews() {
    const section = document.getElementById("own-views");
    if (!section) return;
    section.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = section.querySelector("input").value.trim().slice(0, 60);
      if (!name) return;
      const query = new URLSearchParams(location.search);
      query.delete("cursor");
      const text = query.toString();
      keep([...views().filter((one) => one.name !== name), { name, query: text ? `?${text}` : "" }]);
      section.querySelector("input").value = "";
    });
    showViews();
  }

  /* ---- new records as they come */

  function beginLive() {
    const state = document.getElementById("live-state");
    if (!state || !window.EventSource) return;
    const body = document.querySelector("#live tbody");
    const pause = document.getElementById("live-pause");
    let came = 0;
    let waiting = [];
    let isPaused = false;
    const tell = (text, isOn) => {
      state.textContent = text;
      state.classList.toggle("on", isOn);
    };
    const put = (markup) => {
      const parsed = new DOMParser().parseFromString(`<table><tbody>${markup}</tbody></table>`, "text/html");
      const row = parsed.querySelector("tr");
      if (!row) return;
      row.classList.add("new");
      body.prepend(row);
      while (body.rows.length > MOST_LIVE) body.deleteRow(-1);
    };
    const stream = new EventSource(state.dataset.stream);
    stream.addEventListener("open", () => tell("Following.", true));
    stream.addEventListener("error", () => tell("Not connected; trying again.", false));
    stream.addEventListener("problem", () => tell("The record cannot be read just now.", false));
    stream.addEventListener("message", (event) => {
      came += 1;
      const markup = JSON.parse(event.data);
      if (isPaused) {
        waiting = [...waiting, markup].slice(-MOST_LIVE);
        tell(`Paused; ${waiting.length} wait.`, false);
      } else {
        put(markup);
        tell(`Following; ${came} new.`, true);
      }
    });
    pause.hidden = false;
    pause.addEventListener("click", () => {
      isPaused = !isPaused;
      pause.textContent = isPaused ? "Go on" : "Pause";
      if (!isPaused) waiting.splice(0).forEach(put);
      tell(isPaused ? "Paused." : `Following; ${came} new.`, !isPaused);
    });
    window.addEventListener("pagehide", () => stream.close());
  }

  /* ---- times of the auditor's own place, beside those in UTC */

  function tellLocalTimes() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (!Number.isNaN(moment.valueOf())) time.title = `${moment.toLocaleString()} here`;
    }
  }

  function begin() {
    beginViews();
    tellLocalTimes();
  }

  begin();
  beginLive();
})();
