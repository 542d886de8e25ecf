// What the console does in the browser. Without it everything can be read and every form can be sent.
(() => {
  'use strict';
  const root = document.documentElement;
  const kept = (name, otherwise) => { try { return localStorage.getItem(name) ?? otherwise; } catch { return otherwise; } };
  const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* it is forgotten */ } };

  // Light or dark, as chosen here, or as the system says.
  const theme = kept('theme', '');
  if (theme) root.dataset.theme = theme;
  const isDark = () => (root.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';

  // Times run.
  const UNITS = [['d', 86400, 'h', 3600], ['h', 3600, 'min', 60], ['min', 60, 's', 1]];
  const duration = (ms) => {
    const s = Math.floor(ms / 1000);
    if (ms < 1000) return `${ms} ms`;
    if (s < 10) return `${Math.floor(ms / 100) / 10} s`;
    for (const [name, size, of, small] of UNITS) {
      if (s >= size) {
        const rest = Math.floor((s % size) / small);
        return rest ? `${Math.floor(s / size)} ${name} ${rest} ${of}` : `${Math.floor(s / size)} ${name}`;
      }
    }
    return `${s} s`;
  };
  let ahead = 0; // by how much the server's clock is ahead of this one
  const run = () => {
    if (document.hidden) return;
    const now = Date.now() + ahead;
    for (const time of document.querySelectorAll('#live time')) {
      const at = Date.parse(time.dateTime);
      if (time.dataset.exact !== undefined || Math.abs(now - at) < 1000) continue;
      const text = at > now ? `in ${duration(at - now)}` : `${duration(now - at)} ago`;
      if (time.textContent !== text) time.textContent = text;
    }
    const fresh = document.querySelector('[data-fresh]');
    const made = Date.parse(document.getElementById('live')?.dataset.made ?? '');
    if (fresh && made && !fresh.dataset.lost) fresh.textContent = now - made < 1000 ? 'updated now' : `updated ${duration(Math.floor((now - made) / 1000) * 1000)} ago`;
  };

  // A page refreshes itself, unless somebody is in the middle of something.
  const busy = () => document.hidden || document.querySelector('dialog[open], #live details.menu[open], #live details.by-field[open], #live #drawer details[open], #live [data-select]:checked')
    || document.activeElement?.closest('#live')?.querySelector('input:focus, select:focus, textarea:focus')
    || String(getSelection()).length > 0;
  let last = Date.now();
  const refresh = () => {
    const select = document.querySelector('[data-refresh]');
    const every = Number(select?.value ?? 0) * 1000;
    if (!every || Date.now() - last < every || busy()) return;
    last = Date.now();
    document.getElementById('live')?.dispatchEvent(new Event('refresh'));
  };
  const lost = (is) => {
    const fresh = document.querySelector('[data-fresh]');
    if (!fresh) return;
    if (is) { fresh.dataset.lost = '1'; fresh.textContent = 'Postrider does not answer'; } else delete fresh.dataset.lost;
  };
  document.addEventListener('htmx:after:request', (event) => {
    const status = event.detail?.ctx?.response?.status;
    if (status === 401) location.assign('/login?next=' + encodeURIComponent(location.pathname + location.search));
    lost(!status || status >= 500);
  });
  document.addEventListener('htmx:error', () => lost(true));

  // Dialogs: <button data-opens="id">, and what is in the dialog is sent as any form.
  document.addEventListener('click', (event) => {
    const opens = event.target.closest('[data-opens]');
    if (opens) { event.preventDefault(); document.getElementById(opens.dataset.opens)?.showModal(); }
    const closes = event.target.closest('[data-closes]');
    if (closes) { event.preventDefault(); closes.closest('dialog')?.close(); }
    const copies = event.target.closest('[data-copies]');
    if (copies) {
      const from = document.getElementById(copies.dataset.copies);
      navigator.clipboard?.writeText(from?.value ?? from?.textContent ?? '').then(() => {
        const before = copies.textContent;
        copies.textContent = 'Copied';
        setTimeout(() => { copies.textContent = before; }, 1500);
      });
    }
    for (const menu of document.querySelectorAll('details.menu[open]')) if (!menu.contains(event.target)) menu.open = false;
  });

  // The picker of event types: searching, and boxes that stand for a whole group.
  const picker = (one) => {
    const boxes = (within) => [...within.querySelectorAll('input[type=checkbox][name=event_type]')];
    const search = one.querySelector('[data-search]');
    const count = one.querySelector('[data-count]');
    const show = () => {
      const words = (search?.value ?? '').toLowerCase().split(/\s+/).filter(Boolean);
      for (const group of one.querySelectorAll('details')) {
        let found = 0;
        for (const label of group.querySelectorAll('.types label')) {
          const text = label.textContent.toLowerCase();
          const fits = words.every((word) => text.includes(word)) || label.querySelector('input').checked;
          label.hidden = !fits;
          if (fits) found += 1;
        }
        group.hidden = found === 0;
        if (words.length) group.open = found > 0;
        const all = group.querySelector('[data-all]');
        const inside = boxes(group);
        const on = inside.filter((box) => box.checked).length;
        if (all) { all.hidden = false; all.checked = on > 0 && on === inside.length; all.indeterminate = on > 0 && on < inside.length; }
        const chosen = group.querySelector('[data-chosen]');
        if (chosen) chosen.textContent = `${on} of ${inside.length}`;
      }
      if (count) count.textContent = `${boxes(one).filter((box) => box.checked).length} of ${boxes(one).length} selected`;
    };
    search?.addEventListener('input', show);
    search?.addEventListener('keydown', (event) => { if (event.key === 'Enter') event.preventDefault(); });
    one.addEventListener('change', (event) => {
      const all = event.target.closest('[data-all]');
      if (all) for (const box of boxes(all.closest('details'))) if (!box.closest('label').hidden) box.checked = all.checked;
      show();
    });
    show();
  };

  // What works only with scripts is hidden as it comes, also when a page refreshes itself.
  const reveal = () => {
    for (const hidden of document.querySelectorAll('[data-refresh], [data-fresh], [data-theme-switch], [data-scripted]')) hidden.hidden = false;
  };
  document.addEventListener('htmx:after:swap', reveal);

  document.addEventListener('DOMContentLoaded', () => {
    const made = Date.parse(document.getElementById('live')?.dataset.made ?? '');
    if (made) ahead = made - Date.now();
    reveal();
    const select = document.querySelector('[data-refresh]');
    if (select) {
      select.value = kept('refresh', '5');
      select.addEventListener('change', () => keep('refresh', select.value));
    }
    document.querySelector('[data-theme-switch]')?.addEventListener('click', () => {
      root.dataset.theme = isDark() ? 'light' : 'dark';
      keep('theme', root.dataset.theme);
    });
    document.querySelectorAll('[data-picker]').forEach(picker);
    document.addEventListener('change', (event) => {
      if (!event.target.matches('[data-select-all]')) return;
      for (const box of document.querySelectorAll('[data-select]')) box.checked = event.target.checked;
    });
    setInterval(run, 1000);
    setInterval(refresh, 500);
    run();
  });
  document.addEventListener('keydown', (event) => {
    if (event.target.closest('input, select, textarea') || event.ctrlKey || event.metaKey || event.altKey) return;
    // In the drawer beside a list, up and down lead to the one before and the one behind.
    const beside = { ArrowUp: '#drawer [data-newer]', ArrowDown: '#drawer [data-older]' }[event.key];
    const to = beside && event.target.closest('#drawer') && document.querySelector(beside);
    if (to) { event.preventDefault(); to.click(); }
    if (event.key === '/') {
      const search = document.querySelector('main input[type=search]');
      if (search) { event.preventDefault(); search.focus(); }
    }
  });
})();
