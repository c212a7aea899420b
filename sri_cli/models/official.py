"""The parameter names of the official implementations, and ours.

Each table maps a prefix of an official name to a prefix of ours; the rest of the name agrees.
The longest prefix that fits counts.
"""

from __future__ import annotations

GENESIS_V2 = {
    "encoder.down.": "segregate.encoder.down.",
    "encoder.up.": "segregate.encoder.up.",
    "encoder.mlp.1.": "segregate.encoder.mlp.0.",
    "encoder.mlp.3.": "segregate.encoder.mlp.2.",
    "encoder.mlp.5.": "segregate.encoder.mlp.4.",
    "att_process.log_sigma": "segregate.colouring.log_sigma",
    "att_process.colour_head.conv.": "segregate.colouring.colour_head.",
    "att_process.colour_head.gate.gate": "segregate.colouring.gate",
    "seg_head.": "segregate.seg_head.",
    "feat_head.0.": "segregate.pooling.head.",
    "feat_head.1.": "segregate.pooling.project.",
    "z_head.": "segregate.slot_head.",
    "decoder_module.": "segregate.decoder.layers.",
    "prior_lstm.": "prior.lstm.",
    "prior_linear.": "prior.linear.",
}

# The buffers of BatchNorm follow the same prefixes.
GENESIS = {
    "att_process.core.q_z_nn.": "attention.encoder.",
    "att_process.core.q_z_mean.": "attention.mean.",
    "att_process.core.q_z_var.0.": "attention.spread.",
    "att_process.core.p_x_nn.": "attention.decoder.",
    "att_process.core.p_x_mean.": "attention.logits.",
    "att_process.lstm.": "attention.lstm.",
    "att_process.linear.": "attention.linear.",
    "comp_vae.encoder_module.module.": "components.encoder.",
    "comp_vae.decoder_module.seq.": "components.decoder.layers.",
    "prior_lstm.": "prior.lstm.",
    "prior_linear.": "prior.linear.",
    "prior_mlp.": "component_prior.",
}

SRI = {
    **{f"genesisv2.{name}": ours for name, ours in GENESIS_V2.items() if "prior" not in name},
    "scene_encoder.project_to_scene_dim.": "relate.project.",
    "scene_encoder.mu_s.": "relate.mean.",
    "scene_encoder.sp_s.": "relate.spread.",
    "prior_lstm.scene_encoder.": "prior.from_scene.",
    "prior_lstm.lstm.": "prior.lstm.",
    "prior_lstm.mu.": "prior.mean.",
    "prior_lstm.sp.": "prior.spread.",
    "posterior_lstm.scene_encoder.": "posterior.from_scene.",
    "posterior_lstm.lstm.": "posterior.lstm.",
    "posterior_lstm.sp.": "posterior.spread.",
    "decoder.": "decoder.layers.",
}
for _block in range(3):
    _official, _ours = f"scene_encoder.blocks.{_block}.", f"relate.blocks.{_block}."
    for _name, _own in {
        "k": "key",
        "q": "query",
        "relational_v": "relation",
        "norm_pre_ff": "norm",
        "mlp": "mlp",
    }.items():
        SRI[f"{_official}{_name}."] = f"{_ours}{_own}."

EMORL = {
    # The two scalars are GECO's: they live in the training state, not among the weights.
    "geco_C_ema": "gecos.emorl.gap_ema",
    "geco_beta": "gecos.emorl.beta",
    "hvae_networks.init_posterior": "segregate.start",
    "hvae_networks.pos_embed_projection.": "segregate.encoder.position.",
    "hvae_networks.encoder_pt_1.": "segregate.encoder.convolutions.",
    "hvae_networks.encoder_pt_2.": "segregate.encoder.head.",
    "hvae_networks.norm_slots.": "segregate.layer.norm.",
    "hvae_networks.norm_mu_pre_ff.": "segregate.layer.mean_norm.",
    "hvae_networks.norm_softplus_pre_ff.": "segregate.layer.u_norm.",
    "hvae_networks.to_q.": "segregate.layer.query.",
    "hvae_networks.to_k.": "segregate.layer.key.",
    "hvae_networks.to_v.": "segregate.layer.value.",
    "hvae_networks.gru.cell.": "segregate.layer.gru.",
    "hvae_networks.mlp_mu.": "segregate.layer.mean_mlp.",
    "hvae_networks.mlp_softplus.": "segregate.layer.u_mlp.",
    "hvae_networks.image_decoder.decode.": "segregate.decoder.convolutions.",
    "hvae_networks.image_decoder.pos_embed_projection.": "segregate.decoder.position.",
    "hvae_networks.indep_prior.z_linear.": "segregate.prior.hidden.",
    "hvae_networks.indep_prior.z_mu.": "segregate.prior.mean.",
    "hvae_networks.indep_prior.z_softplus.": "segregate.prior.spread.",
    "refinenet.recurrence.weight_ih_l0": "segregate.refine.cell.weight_ih",
    "refinenet.recurrence.weight_hh_l0": "segregate.refine.cell.weight_hh",
    "refinenet.recurrence.bias_ih_l0": "segregate.refine.cell.bias_ih",
    "refinenet.recurrence.bias_hh_l0": "segregate.refine.cell.bias_hh",
    "refinenet.encoding.": "segregate.refine.encoder.",
    "refinenet.loc.": "segregate.refine.mean.",
    "refinenet.softplus.": "segregate.refine.spread.",
}

SLOT_VAE = {
    **{f"img_encoder.cnn_layers.{i}.0.": f"encoder.convolutions.{2 * i}." for i in range(4)},
    "img_encoder.encoder_pos_embedding.dense.": "encoder.position.",
    "img_encoder.cnn_out_layer.": "encoder.head.",
    "global_struct_draw.p_global_decoder_net.mlp.": "draw.expand.",
    "global_struct_draw.rnn_enc.h_0": "draw.encoder_cell.first_hidden",
    "global_struct_draw.rnn_enc.c_0": "draw.encoder_cell.first_cell",
    "global_struct_draw.rnn_enc.conv.": "draw.encoder_cell.gates.",
    "global_struct_draw.rnn_dec.h_0": "draw.decoder_cell.first_hidden",
    "global_struct_draw.rnn_dec.c_0": "draw.decoder_cell.first_cell",
    "global_struct_draw.rnn_dec.conv.": "draw.decoder_cell.gates.",
    "global_struct_draw.p_global_net.mlp.": "draw.prior.",
    "global_struct_draw.q_global_net.mlp.": "draw.posterior.",
    "global_struct_draw.hid_to_dec_net.conv.0.": "draw.paint.",
    "global_struct_draw.enc.conv.": "draw.encoder.",
    "global_struct_draw.dec.": "draw.features.",
    "p_z_given_x.slot_attention.norm_inputs.": "attention.input_norm.",
    "p_z_given_x.slot_attention.norm_slots.": "attention.slot_norm.",
    "p_z_given_x.slot_attention.norm_mlp.": "attention.mlp.0.",
    "p_z_given_x.slot_attention.project_q.": "attention.query.",
    "p_z_given_x.slot_attention.project_k.": "attention.key.",
    "p_z_given_x.slot_attention.project_v.": "attention.value.",
    "p_z_given_x.slot_attention.gru.": "attention.gru.",
    "p_z_given_x.slot_attention.mlp.0.": "attention.mlp.1.",
    "p_z_given_x.slot_attention.mlp.2.": "attention.mlp.3.",
    "p_z_given_x.slot_attention.slots_mu": "attention.initial_mean",
    "p_z_given_x.slot_attention.slots_log_sigma": "attention.initial_log_std",
    "p_z_given_x.fc_mu.": "attention.mean.",
    "p_z_given_x.fc_std.": "attention.spread.",
    **{f"decoder.dcnn_layers.{i}.0.": f"decoder.convolutions.{2 * i}." for i in range(5)},
    "decoder.dcnn_layers.4.2.": "decoder.convolutions.10.",
    "decoder.decoder_pos_embedding.dense.": "decoder.position.",
}

TABLES = {
    "sri": SRI,
    "genesis-v2": GENESIS_V2,
    "genesis": GENESIS,
    "emorl": EMORL,
    "slot-vae": SLOT_VAE,
}


def our_name(system: str, official: str) -> str | None:
    """Our name of a parameter of the official implementation; None if no prefix fits."""
    return _translate(TABLES[system], official, -1)


def official_name(system: str, ours: str) -> str | None:
    """The official name of one of our parameters; None if there is none."""
    return _translate({own: prefix for prefix, own in TABLES[system].items()}, ours, 1)


def _translate(table: dict[str, str], name: str, shift: int) -> str | None:
    """`name` with its longest prefix in `table` replaced; `shift` renumbers decoder layers.

    The official decoders have the broadcast at position 0 of their Sequential; ours do not.
    """
    prefix = max((prefix for prefix in table if name.startswith(prefix)), key=len, default=None)
    if prefix is None:
        return None
    rest = name.removeprefix(prefix)
    if prefix.endswith("decoder.layers.") or table[prefix].endswith("decoder.layers."):
        index, _, leaf = rest.partition(".")
        if not index.isdecimal():
            return None
        rest = f"{int(index) + shift}.{leaf}"
    return table[prefix] + rest
