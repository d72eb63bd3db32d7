// Two things HTML and htmx do not do: show whether the server answers, and select all. The rest works without this file.
"use strict";

function showConnection(problem) {
  const connection = document.getElementById("connection");
  const text = connection && (problem || connection.dataset.live);
  if (connection && connection.textContent !== text) {
    connection.textContent = text;
    connection.classList.toggle("lost", Boolean(problem));
  }
}

const showLost = () => showConnection("the dashboard does not answer; retrying");
document.body.addEventListener("htmx:sseOpen", () => showConnection());
document.body.addEventListener("htmx:sseError", showLost);
document.body.addEventListener("htmx:sendError", showLost);
document.body.addEventListener("htmx:responseError", (event) => {
  const unreachable = event.detail.xhr.status === 503;
  showConnection(
    unreachable ? "a server is unreachable, see the overview; retrying" : "the dashboard refuses: reload this page",
  );
});

const all = document.querySelector("[data-all]");
if (all) {
  all.hidden = false;
  all.closest("label").classList.add("usable");
  all.addEventListener("change", () => {
    for (const box of all.form.querySelectorAll("input[name=id]")) box.checked = all.checked;
  });
}
