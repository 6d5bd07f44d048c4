// Beside app.js: zooms images, moves the focus to the next question, and sends an answer again until
// the server has stored it. An answer has a token, so that sending it twice stores it once.
"use strict";
(() => {
  const RETRY_MS = 1500;
  let submitter = null, waiting = 0;
  document.addEventListener("submit", (event) => { submitter = event.submitter; clearTimeout(waiting); }, true);
  document.addEventListener("click", (event) => {
    const zoom = event.target.closest(".zoom");
    if (zoom) zoom.setAttribute("aria-pressed", String(zoom.getAttribute("aria-pressed") !== "true"));
  });
  const arrived = () => {
    document.getElementById("asked")?.focus({ preventScroll: true });
    document.querySelector(".asked")?.scrollIntoView({ block: "center" });
  };
  document.addEventListener("stepgold:replaced", arrived);
  document.addEventListener("stepgold:failed", ({ detail: { form } }) => {
    if (!form.isConnected || !form.matches("[data-retry]")) return;
    form.querySelector("[data-saving]")?.removeAttribute("hidden");
    const by = submitter;
    clearTimeout(waiting);  // the key that was pressed last is the one to send
    waiting = setTimeout(() => { if (form.isConnected) form.requestSubmit(by?.form === form ? by : undefined); }, RETRY_MS);
  });
  if (location.pathname === "/review") arrived();
})();
