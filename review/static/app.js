// The pages work without this script. It keeps them up to date, sends forms without a reload,
// and adds keys. Markup says what to do:
//   body[data-live=STAMP]        ask for the stamp of the workspace and refresh when it changes
//   [data-region=NAME]           a part that a refresh or a form replaces
//   form[data-send]              send by script; replaces the regions that the answer brings
//   form[data-auto]              send when a field changes
//   [data-key="x"]               pressed by this key: links are followed, buttons clicked
//   [data-rows] tr[data-href]    rows that j, k and Enter go through
//   [data-more]                  a link whose rows are added while it is on the page
"use strict";
(() => {
  const one = (query, root = document) => root.querySelector(query);
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const LOOK_MS = 1500;

  // Replacing parts

  const replaceRegions = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    let found = 0;
    for (const region of all("[data-region]", fresh)) {
      const old = one(`[data-region="${CSS.escape(region.dataset.region)}"]`);
      if (!old) continue;
      found += 1;
      if (old.isEqualNode(region)) continue;
      const active = document.activeElement, inside = old.contains(active) && active;
      const name = inside && (active.id || active.getAttribute("name") || active.getAttribute("href"));
      const opened = all("details[open][id]", old).map((each) => each.id);
      const place = all("tr[data-href]", old).indexOf(inside && active.closest("tr"));
      const node = document.importNode(region, true);
      old.replaceWith(node);
      for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
      if (inside) {
        const again = name && all("[id], [name], [href]", node).find((each) =>
          name === (each.id || each.getAttribute("name") || each.getAttribute("href")));
        (again || all("tr[data-href]", node)[place] || one("[autofocus]", node) || one("#main")).focus({ preventScroll: true });
      }
    }
    const live = fresh.body.dataset.live;
    if (live !== undefined) document.body.dataset.live = live;
    if (found) {
      document.title = fresh.title;
      started();
      document.dispatchEvent(new CustomEvent("stepgold:replaced"));
    }
    return found;
  };

  // Following the workspace

  let busy = false;
  const state = one("[data-state]");
  const calm = state?.textContent;
  const lost = (is) => {
    if (!state) return;
    state.classList.toggle("lost", is);
    const words = is ? state.dataset.lost : calm;
    if (state.textContent !== words) state.textContent = words;
  };
  const look = async () => {
    if (document.hidden || busy) return;
    try {
      const answer = await fetch("/stamp", { cache: "no-store" });
      lost(!answer.ok);
      if (!answer.ok) return;
      const { stamp } = await answer.json();
      if (String(stamp) !== document.body.dataset.live && !busy) {
        const page = await fetch(location.href, { cache: "no-store" });
        if (page.ok) replaceRegions(await page.text());
        document.body.dataset.live = String(stamp);
      }
    } catch {
      lost(true);
    }
  };
  if (document.body.dataset.live !== undefined) setInterval(look, LOOK_MS);

  // Forms

  const sent = async (form, submitter) => {
    const body = new URLSearchParams(new FormData(form, submitter));
    let answer = await fetch(form.action, { method: "POST", body });
    const token = answer.headers.get("X-Form-Token");
    // The server was started again since the page was made, or it stored the answer and its reply
    // was lost: what may be sent twice is sent with a fresh token.
    if (token && (answer.status === 403 || form.matches("[data-retry]"))) {
      body.set("form_token", token);
      answer = await fetch(form.action, { method: "POST", body });
    }
    return answer;
  };
  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form[data-send]")) {
      // Empty fields of a filter stay out of the address.
      if (form.method === "get") for (const field of form.elements) if (!field.value) field.disabled = true;
      return;
    }
    event.preventDefault();
    if (busy) return;
    busy = true;
    form.setAttribute("aria-busy", "true");
    try {
      const answer = await sent(form, event.submitter);
      const text = await answer.text();
      if (answer.redirected && answer.ok) history.replaceState(null, "", answer.url);
      if (!answer.ok && !text.includes("data-region")) throw new Error(text.trim());
      if (!replaceRegions(text)) location.reload();
      lost(false);
    } catch (fault) {
      lost(true);
      document.dispatchEvent(new CustomEvent("stepgold:failed", { detail: { form, fault } }));
    } finally {
      busy = false;
      form.removeAttribute("aria-busy");
    }
  });
  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (form?.matches("form[data-auto]") && event.target.type !== "search") form.requestSubmit();
  });

  // Keys

  const help = one("[data-help]");
  const showHelp = () => help.open ? help.close() : help.showModal();
  const rows = () => all("[data-rows] tr[data-href]");
  const step = (by) => {
    const listed = rows();
    if (!listed.length) return;
    const at = listed.indexOf(document.activeElement.closest("tr[data-href]"));
    const next = at < 0 ? (by > 0 ? 0 : listed.length - 1) : Math.min(listed.length - 1, Math.max(0, at + by));
    one("a", listed[next]).focus();
    listed[next].scrollIntoView({ block: "nearest" });
  };
  const keyButton = one("[data-keys]");
  keyButton.hidden = false;
  keyButton.addEventListener("click", showHelp);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const typing = event.target.matches("input:not([type=radio], [type=checkbox]), textarea, select");
    if (event.key === "Escape" && typing) event.target.blur();
    if (typing || help.open) return;
    // The place of the key, where a Korean keyboard writes another letter on it.
    const place = event.code.startsWith("Key") ? event.code.slice(3).toLowerCase() : event.key;
    const key = /^[\x20-\x7e]$/.test(event.key) ? event.key : place;
    if (key === "?") showHelp();
    else if (key === "j") step(1);
    else if (key === "k") step(-1);
    else {
      const target = all("[data-key]").find((each) => each.dataset.key === key && !each.disabled);
      if (!target) return;
      if (target.matches("a, button, summary")) target.click();
      else target.focus();
    }
    event.preventDefault();
  });

  // A search that goes on

  const searchOn = async () => {
    const link = one("a[data-more]");
    if (!link || busy) return;
    busy = true;
    try {
      const answer = await fetch(link.href, { cache: "no-store" });
      if (!answer.ok || !link.isConnected) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const body = one("[data-rows]");
      body.append(...all("[data-rows] > tr", fresh).map((row) => document.importNode(row, true)));
      const pager = one("[data-pager]", fresh);
      one("[data-pager]").replaceWith(document.importNode(pager, true));
      one("[data-none]")?.toggleAttribute("hidden", body.children.length > 0 || Boolean(one("a[data-more]")));
      if (body.children.length >= Number(body.dataset.rows)) one("a[data-more]")?.removeAttribute("data-more");
    } catch {
      lost(true);
    } finally {
      busy = false;
    }
    if (one("a[data-more]")) setTimeout(searchOn, 0);
  };
  const started = () => {
    if (one("a[data-more]")) setTimeout(searchOn, 0);
  };
  started();
})();
