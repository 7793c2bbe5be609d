// Questions before something is done. The element is the browser's own: it keeps the focus
// inside, closes with Escape, and gives the focus back.

import { html, render, nothing } from "../vendor/lit-html/lit-html.js";

let close = () => {};

/** Takes the question away that is asked, if there is one. */
export function dismiss() {
  close(null);
}

/**
 * Asks; resolves with the fields' values, or null. A field has name, label, and either `type` and
 * `value` or `options` as [value, text]; `hint` says more; `when(values)` whether it counts.
 */
export function ask({ title, text, action, danger = false, fields = [] }) {
  // Of one that was just left with Escape the browser has still to say so: that is not about this one.
  dismiss();
  return new Promise((resolve) => {
    const root = document.getElementById("dialogs");
    const values = () => Object.fromEntries(new FormData(root.querySelector("form")));
    close = (answer) => {
      close = () => {};
      dialog.onclose = null;
      dialog.close();
      render(nothing, root);
      resolve(answer);
    };
    const draw = (now) => render(html`
      <dialog aria-labelledby="dialog-title">
        <form method="dialog" @submit=${(event) => { event.preventDefault(); close(values()); }}
          @input=${() => draw(values())}>
          <h2 id="dialog-title">${title}</h2>
          <p>${text}</p>
          ${fields.map((one) => one.when && !one.when(now) ? nothing : field(one))}
          <p class="buttons">
            <button type="button" @click=${() => close(null)}>Cancel</button>
            <button class=${danger ? "danger" : "main"}>${action}</button>
          </p>
        </form>
      </dialog>`, root);
    draw(Object.fromEntries(fields.map((one) => [one.name, one.value])));
    const dialog = root.querySelector("dialog");
    dialog.onclose = () => close(null);
    dialog.showModal();
  });
}

function field({ name, label, hint, options, type, value, min, max }) {
  const id = `field-${name}`;
  return html`<p class="field"><label for=${id}>${label}</label>
    ${options
      ? html`<select id=${id} name=${name}>${options.map(([one, text]) => html`
          <option value=${one} ?selected=${one === value}>${text}</option>`)}</select>`
      : html`<input id=${id} name=${name} type=${type} .defaultValue=${String(value ?? "")} required
          min=${min ?? nothing} max=${max ?? nothing} step=${type === "datetime-local" ? "1" : nothing}>`}
    ${hint ? html`<small>${hint}</small>` : nothing}</p>`;
}
