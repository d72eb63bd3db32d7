// What HTML and htmx cannot do: say whether the server answers, and tick all. Everything else works without it.
"use strict";

function say(trouble) {
  const connection = document.getElementById("connection");
  const text = connection && (trouble || connection.dataset.well);
  if (connection && connection.textContent !== text) {
    connection.textContent = text;
    connection.classList.toggle("lost", Boolean(trouble));
  }
}

const silent = () => say("the dashboard does not answer; trying again");
document.body.addEventListener("htmx:sseOpen", () => say());
document.body.addEventListener("htmx:sseError", silent);
document.body.addEventListener("htmx:sendError", silent);
document.body.addEventListener("htmx:responseError", (event) => {
  const away = event.detail.xhr.status === 503;
  say(away ? "a server is away, see the overview; trying again" : "the dashboard refuses: load this page again");
});

const all = document.querySelector("[data-all]");
if (all) {
  all.hidden = false;
  all.closest("label").classList.add("usable");
  all.addEventListener("change", () => {
    for (const box of all.form.querySelectorAll("input[name=id]")) box.checked = all.checked;
  });
}
