// What HTML and htmx cannot do: say whether the stream is alive, and tick all. Everything else works without it.
"use strict";

const connection = document.getElementById("connection");

function say(text, lost) {
  if (connection && connection.textContent !== text) {
    connection.textContent = text;
    connection.classList.toggle("lost", lost);
  }
}

document.body.addEventListener("htmx:sseOpen", () => say("live, once a second", false));
document.body.addEventListener("htmx:sseError", () => say("the dashboard does not answer; trying again", true));

const all = document.querySelector("[data-all]");
if (all) {
  all.hidden = false;
  all.closest("label").classList.add("usable");
  all.addEventListener("change", () => {
    for (const box of all.form.querySelectorAll("input[name=id]")) box.checked = all.checked;
  });
}
